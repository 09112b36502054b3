//! Adapters of a job: none, one for all records, or several by name, of which each record selects one.

use super::foreign::{ForeignOptions, FormatName};
use crate::TrainError;
use crate::data::Record;
use clap::Args;
use lora_core::named::check_name;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Default key or column of a record's adapter.
const COLUMN: &str = "adapter";

const NEEDS_NAMES: &str = "requires named adapters: give them as `--adapter NAME=DIR`";

/// Options of the adapters of a job.
#[derive(Args, Clone, Debug, Default)]
pub struct AdapterOptions {
    /// PEFT adapter to load, or a file of loralib (microsoft/LoRA) beside its --alpha [default: none, the model alone]. Several adapters are given as NAME=DIR; each record then names its adapter, or none for the model alone.
    #[arg(long = "adapter", value_name = "[NAME=]DIR")]
    pub adapters: Vec<AdapterArg>,
    /// With named adapters: column or key that names a record's adapter [default: adapter].
    #[arg(long, value_name = "NAME")]
    pub adapter_column: Option<String>,
    /// Values that a file of loralib lacks.
    #[command(flatten)]
    pub foreign: ForeignOptions,
    /// Fail, instead of warning, if an adapter was trained on another base model.
    #[arg(long)]
    pub strict_base: bool,
}

/// Directory of an adapter, or its file, with a name or without.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterArg {
    /// Name.
    pub name: Option<String>,
    /// Directory or file.
    pub dir: PathBuf,
    /// Values that a file of another program lacks.
    pub foreign: ForeignOptions,
}

impl From<PathBuf> for AdapterArg {
    fn from(dir: PathBuf) -> Self {
        Self {
            name: None,
            dir,
            foreign: ForeignOptions::default(),
        }
    }
}

impl FromStr for AdapterArg {
    type Err = String;

    /// Parses `NAME=DIR` or `DIR`. Text before a `=` that is not a valid name belongs to the directory, as in `./lr=1e-4`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty, expected a directory".into());
        }
        match text.split_once('=') {
            Some((name, dir)) if check_name(name).is_ok() => match dir {
                "" => Err(format!("`{name}` has no directory, expected NAME=DIR")),
                dir => Ok(Self {
                    name: Some(name.into()),
                    ..PathBuf::from(dir).into()
                }),
            },
            _ => Ok(PathBuf::from(text).into()),
        }
    }
}

/// Adds the options for loralib files to adapters, and refuses them if there is not one such file.
///
/// # Errors
/// [`TrainError::Config`] as [`ForeignOptions::check`].
pub(crate) fn with_foreign(
    adapters: &[AdapterArg],
    foreign: &ForeignOptions,
) -> Result<Vec<AdapterArg>, TrainError> {
    let formats = adapters.iter().map(|adapter| {
        // No other program's adapters are single files.
        if adapter.dir.is_file() {
            FormatName::Loralib
        } else {
            FormatName::Peft
        }
    });
    foreign.check(&formats.collect::<Vec<_>>())?;
    let adapters = adapters.iter().map(|adapter| AdapterArg {
        foreign: foreign.clone(),
        ..adapter.clone()
    });
    Ok(adapters.collect())
}

impl AdapterOptions {
    /// Creates the options of one adapter without a name.
    pub fn one(dir: impl Into<PathBuf>) -> Self {
        Self {
            adapters: vec![dir.into().into()],
            ..Self::default()
        }
    }

    /// Returns true if adapters are given by name.
    fn is_named(&self) -> bool {
        self.adapters.iter().any(|adapter| adapter.name.is_some())
    }

    /// Checks the options and returns the adapters: none for the model alone, one without a name for all records, or
    /// adapters by name.
    pub(crate) fn selection(&self) -> Result<Vec<AdapterArg>, TrainError> {
        let refuse = |message: &str| Err(TrainError::config("adapter", message));
        if self.adapter_column.is_some() && !self.is_named() {
            return Err(TrainError::config("adapter_column", NEEDS_NAMES));
        }
        let adapters = with_foreign(&self.adapters, &self.foreign)?;
        if let [] | [AdapterArg { name: None, .. }] = adapters.as_slice() {
            return Ok(adapters);
        }
        for (at, adapter) in adapters.iter().enumerate() {
            let Some(name) = &adapter.name else {
                return refuse(
                    "is given several times; give each as NAME=DIR, so that records can select one",
                );
            };
            let mut others = adapters[..at].iter();
            if others.any(|other| other.name == adapter.name) {
                return refuse(&format!("`{name}` is given twice; give each another name"));
            }
        }
        Ok(adapters)
    }

    /// Returns the [`selection`](Self::selection), which must be by name if there is a `default` for records that name
    /// none.
    pub(crate) fn selection_with(
        &self,
        default: Option<&str>,
    ) -> Result<Vec<AdapterArg>, TrainError> {
        let selection = self.selection()?;
        if default.is_some() && !self.is_named() {
            return Err(TrainError::config("use", NEEDS_NAMES));
        }
        Ok(selection)
    }

    /// Returns the column with the adapters' names, if adapters are given by name.
    pub(crate) fn column(&self) -> Option<&str> {
        self.is_named()
            .then(|| self.adapter_column.as_deref().unwrap_or(COLUMN))
    }

    /// Refuses a data file in which no record names an adapter, if adapters are given by name.
    pub(crate) fn check_named(&self, path: &Path, records: &[Record]) -> Result<(), TrainError> {
        let is_chosen = records.iter().any(|record| record.adapter.is_some());
        let Some(column) = self.column().filter(|_| !is_chosen) else {
            return Ok(());
        };
        let message = format!(
            "no record names its adapter in `{column}`; select another column or key with `adapter_column` (JSON Lines, \
             CSV or TSV)",
        );
        Err(TrainError::data_format(path, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Origin;

    fn parsed(text: &str) -> (Option<String>, String) {
        let arg: AdapterArg = text.parse().unwrap();
        (arg.name, arg.dir.to_str().unwrap().into())
    }

    #[test]
    fn a_name_stands_before_the_directory() {
        assert_eq!(parsed("runs/a"), (None, "runs/a".into()));
        assert_eq!(parsed("de=runs/a"), (Some("de".into()), "runs/a".into()));
        assert_eq!(
            parsed("de=runs/lr=1"),
            (Some("de".into()), "runs/lr=1".into())
        );
        assert_eq!(parsed("./lr=1"), (None, "./lr=1".into()));
        assert_eq!(parsed("runs/lr=1"), (None, "runs/lr=1".into()));
        assert!("de=".parse::<AdapterArg>().is_err());
        assert!("".parse::<AdapterArg>().is_err());
    }

    #[test]
    fn several_adapters_need_names_of_their_own() {
        let options = |args: &[&str]| AdapterOptions {
            adapters: args.iter().map(|arg| arg.parse().unwrap()).collect(),
            ..AdapterOptions::default()
        };
        let names = |args: &[&str]| -> Vec<Option<String>> {
            let options = options(args);
            let selection = options.selection().unwrap().into_iter();
            selection.map(|adapter| adapter.name).collect()
        };
        let name = |name: &str| Some(name.to_string());
        assert!(names(&[]).is_empty());
        assert_eq!(names(&["a"]), [None::<String>]);
        assert_eq!(names(&["x=a"]), [name("x")]);
        assert_eq!(names(&["x=a", "y=b"]), [name("x"), name("y")]);
        for bad in [&["a", "b"][..], &["x=a", "b"], &["x=a", "x=b"]] {
            assert!(options(bad).selection().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_that_names_no_adapter_is_refused() {
        let options = AdapterOptions {
            adapters: vec!["x=a".parse().unwrap()],
            ..AdapterOptions::default()
        };
        assert_eq!(options.column(), Some("adapter"));
        let path = Path::new("a.jsonl");
        let record = || Record::text("x", Origin::new(path, 1));
        let records = [record(), record().with_adapter(Some("x".into()))];
        assert!(options.check_named(path, &records).is_ok());
        let message = options.check_named(path, &records[..1]).unwrap_err();
        let message = message.to_string();
        assert!(message.contains("`adapter`") && message.contains("adapter_column"));
        // One adapter without a name is for all records, whatever they name.
        assert_eq!(AdapterOptions::one("a").column(), None);
    }
}
