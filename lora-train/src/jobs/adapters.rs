//! The adapters that a job uses: none, one, or several of which each record names its own.

use super::open::check_base;
use crate::TrainError;
use crate::data::{DataFormat, Origin, read_adapter_names};
use crate::progress::Screen;
use clap::Args;
use lora_core::named::{NamedAdapters, check_name};
use lora_core::{AttachReport, LoraError};
use lora_models::{ModelAdapters, Pretrained};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The key or column that names a record's adapter.
const COLUMN: &str = "adapter";

const NEEDS_NAMES: &str = "goes with adapters by name: give them as `--adapter NAME=DIR`";

/// The adapters of a job.
#[derive(Args, Clone, Debug, Default)]
pub struct AdapterOptions {
    /// PEFT adapter on the model [default: the model alone]. With a name, and given several times, records choose: each names its adapter, or none for the model alone.
    #[arg(long = "adapter", value_name = "[NAME=]DIR")]
    pub adapters: Vec<AdapterArg>,
    /// With named adapters: column or key that names a record's adapter [default: adapter].
    #[arg(long, value_name = "NAME")]
    pub adapter_column: Option<String>,
    /// Refuse an adapter that is known to be of another base, where otherwise a line warns.
    #[arg(long)]
    pub strict_base: bool,
}

/// A directory with an adapter, with a name or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterArg {
    /// The name.
    pub name: Option<String>,
    /// The directory.
    pub dir: PathBuf,
}

impl From<PathBuf> for AdapterArg {
    fn from(dir: PathBuf) -> Self {
        Self { name: None, dir }
    }
}

impl FromStr for AdapterArg {
    type Err = String;

    /// `NAME=DIR`, or `DIR`; what is no name before a `=` belongs to the directory, as in `./lr=1e-4`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty, expected a directory".into());
        }
        match text.split_once('=') {
            Some((name, dir)) if check_name(name).is_ok() => match dir {
                "" => Err(format!("`{name}` has no directory, expected NAME=DIR")),
                dir => Ok(Self {
                    name: Some(name.into()),
                    dir: dir.into(),
                }),
            },
            _ => Ok(PathBuf::from(text).into()),
        }
    }
}

/// What is asked for.
pub(crate) enum Wanted<'a> {
    /// The model alone.
    None,
    /// One adapter for everything.
    One(&'a Path),
    /// Adapters by name.
    Named(Vec<(&'a str, &'a Path)>),
}

impl Wanted<'_> {
    /// The one adapter.
    pub fn one(&self) -> Option<&Path> {
        match self {
            Self::One(dir) => Some(dir),
            _ => None,
        }
    }

    /// All of them.
    pub fn dirs(&self) -> Vec<&Path> {
        match self {
            Self::None => Vec::new(),
            Self::One(dir) => vec![dir],
            Self::Named(named) => named.iter().map(|(_, dir)| *dir).collect(),
        }
    }

    /// The first adapter of any.
    pub fn first(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::One(dir) => Some(dir),
            Self::Named(named) => named.first().map(|(_, dir)| *dir),
        }
    }
}

impl AdapterOptions {
    /// One adapter, without a name.
    pub fn one(dir: impl Into<PathBuf>) -> Self {
        Self {
            adapters: vec![dir.into().into()],
            ..Self::default()
        }
    }

    /// What is asked for.
    pub(crate) fn wanted(&self) -> Result<Wanted<'_>, TrainError> {
        let refuse = |message: &str| Err(TrainError::config("adapter", message));
        let is_named = self.adapters.iter().any(|adapter| adapter.name.is_some());
        if self.adapter_column.is_some() && !is_named {
            return Err(TrainError::config("adapter_column", NEEDS_NAMES));
        }
        match self.adapters.as_slice() {
            [] => Ok(Wanted::None),
            [AdapterArg { name: None, dir }] => Ok(Wanted::One(dir)),
            several => {
                let mut named: Vec<(&str, &Path)> = Vec::new();
                for adapter in several {
                    let Some(name) = &adapter.name else {
                        return refuse(
                            "is given several times; give each a name, as NAME=DIR, by which records choose",
                        );
                    };
                    if named.iter().any(|(other, _)| *other == name.as_str()) {
                        return refuse(&format!("`{name}` is given twice; give each another name"));
                    }
                    named.push((name.as_str(), adapter.dir.as_path()));
                }
                Ok(Wanted::Named(named))
            }
        }
    }

    /// [`wanted`](Self::wanted), with an adapter for records that name none.
    pub(crate) fn wanted_with(&self, otherwise: Option<&str>) -> Result<Wanted<'_>, TrainError> {
        let wanted = self.wanted()?;
        match (&wanted, otherwise) {
            (_, None) | (Wanted::Named(_), _) => Ok(wanted),
            _ => Err(TrainError::config("use", NEEDS_NAMES)),
        }
    }

    /// Warns of an adapter that was trained on another base, or refuses it, as asked for.
    pub(crate) fn check_base(
        &self,
        dir: Option<&Path>,
        report: Option<&AttachReport>,
        screen: &Screen,
    ) -> Result<(), TrainError> {
        check_base(dir, report, self.strict_base, screen)
    }

    /// Puts adapters on a model, by name.
    pub(crate) fn put<M: Pretrained>(
        &self,
        model: M,
        wanted: &[(&str, &Path)],
        screen: &Screen,
    ) -> Result<NamedAdapters<M>, TrainError> {
        let mut set = model.named_adapters()?;
        for (name, dir) in wanted {
            let report = set.load(name, dir)?;
            self.check_base(Some(dir), Some(&report), screen)?;
            screen.line(&format!(
                "adapter   {name}: {}, {} modules, {} parameters",
                dir.display(),
                report.modules.len(),
                report.parameters() + report.saved_parameters()
            ));
        }
        Ok(set)
    }

    /// The names in a data file, by the line of the record. Where none names any it is an error if they are `needed`.
    pub(crate) fn names_in(
        &self,
        path: &Path,
        format: DataFormat,
        needed: bool,
    ) -> Result<BTreeMap<usize, String>, TrainError> {
        let column = self.adapter_column.as_deref().unwrap_or(COLUMN);
        read_adapter_names(path, format, column, needed)
    }
}

/// The adapters of a set of examples.
pub(crate) struct Uses<M: Pretrained> {
    set: NamedAdapters<M>,
    /// Of each example.
    names: Vec<Option<String>>,
}

impl<M: Pretrained> Uses<M> {
    /// Gives each example, by where it was read, the adapter that its line names.
    pub fn new<'a>(
        set: NamedAdapters<M>,
        by_line: &BTreeMap<usize, String>,
        origins: impl Iterator<Item = &'a Origin>,
    ) -> Result<Self, TrainError> {
        let mut names = Vec::new();
        for origin in origins {
            let name = by_line.get(&origin.line()).cloned();
            check(&set, name.as_deref(), origin)?;
            names.push(name);
        }
        Ok(Self { set, names })
    }

    /// The model with the adapters.
    pub fn model(&self) -> &M {
        self.set.model()
    }

    fn run<T>(&self, examples: &[usize], work: impl FnOnce() -> T) -> Result<T, TrainError> {
        let names: Vec<Option<&str>> = examples
            .iter()
            .map(|&at| self.names[at].as_deref())
            .collect();
        Ok(self.set.assign(&names)?.run(work))
    }
}

/// Runs `work` on a batch of examples, each with its adapter where there are some.
pub(crate) fn within<M: Pretrained, T>(
    uses: Option<&Uses<M>>,
    examples: &[usize],
    work: impl FnOnce() -> T,
) -> Result<T, TrainError> {
    match uses {
        None => Ok(work()),
        Some(uses) => uses.run(examples, work),
    }
}

/// Refuses a name that is not there, and no name where the model alone would say something at random.
pub(crate) fn check<M: Pretrained>(
    set: &NamedAdapters<M>,
    name: Option<&str>,
    origin: &Origin,
) -> Result<(), TrainError> {
    let refuse = |message: String| TrainError::data_line(origin.path(), origin.line(), message);
    match name {
        Some(name) => match set.report(name) {
            Ok(_) => Ok(()),
            Err(error @ LoraError::UnknownAdapter { .. }) => Err(refuse(error.to_string())),
            Err(error) => Err(error.into()),
        },
        None if set.base().random_modules().is_empty() => Ok(()),
        None => Err(refuse(format!(
            "names no adapter, and the model has no {} of its own: alone it would say something at random",
            set.base().random_modules().join(" and no ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(options(&[]).wanted(), Ok(Wanted::None)));
        assert!(matches!(options(&["a"]).wanted(), Ok(Wanted::One(_))));
        assert!(matches!(options(&["x=a"]).wanted(), Ok(Wanted::Named(named)) if named.len() == 1));
        assert!(
            matches!(options(&["x=a", "y=b"]).wanted(), Ok(Wanted::Named(named)) if named.len() == 2)
        );
        for bad in [&["a", "b"][..], &["x=a", "b"], &["x=a", "x=b"]] {
            assert!(options(bad).wanted().is_err(), "{bad:?}");
        }
    }
}
