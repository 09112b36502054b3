//! Files and directories that a command reads, which its output may not replace.

use super::adapters::AdapterOptions;
use crate::TrainError;
use std::path::{Path, PathBuf};

/// Endings of names that no file of a model or of an adapter has.
const RESULTS: [&str; 2] = ["jsonl", "ndjson"];

/// Inputs of a command, as canonical paths. What does not exist, such as a model given by its name on the Hub, is left out.
#[derive(Default)]
pub(crate) struct Inputs(Vec<PathBuf>);

impl Inputs {
    /// Collects a model, the adapters on it, and files of data.
    pub fn new<'a>(
        model: &'a Path,
        adapters: &'a AdapterOptions,
        data: impl IntoIterator<Item = Option<&'a PathBuf>>,
    ) -> Self {
        let adapters = adapters.adapters.iter().map(|adapter| &*adapter.dir);
        let data = data.into_iter().flatten().map(PathBuf::as_path);
        Self::of(std::iter::once(model).chain(adapters).chain(data))
    }

    /// Collects files and directories.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let paths = paths.into_iter();
        Self(paths.filter_map(|path| path.canonicalize().ok()).collect())
    }

    /// Refuses an output that is one of the inputs, or holds one.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names `option` and the input.
    pub fn refuse(&self, option: &str, output: &Path) -> Result<(), TrainError> {
        let Some(output) = canonical(output) else {
            return Ok(());
        };
        self.refuse_where(option, &output, |input| input.starts_with(&output))
    }

    /// Refuses a file as [`refuse`](Self::refuse), and one that would be a file of an input directory. Results in JSON Lines may
    /// lie beside the files of a model or an adapter.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names `option` and the input.
    pub fn refuse_file(&self, option: &str, output: &Path) -> Result<(), TrainError> {
        self.refuse(option, output)?;
        let Some(output) = canonical(output) else {
            return Ok(());
        };
        let extension = output.extension().and_then(|extension| extension.to_str());
        let is_result = extension.is_some_and(|extension| RESULTS.contains(&extension));
        let folder = output.parent().filter(|_| !is_result);
        self.refuse_where(option, &output, |input| {
            input.is_dir() && folder == Some(input)
        })
    }

    fn refuse_where(
        &self,
        option: &str,
        output: &Path,
        is_refused: impl Fn(&Path) -> bool,
    ) -> Result<(), TrainError> {
        let Some(input) = self.0.iter().find(|input| is_refused(input)) else {
            return Ok(());
        };
        let (output, input) = (output.display(), input.display());
        let message = format!(
            "{output} would replace {input}, or a file of it, which this run reads; choose another place"
        );
        Err(TrainError::config(option, message))
    }
}

/// Returns the canonical path of a file or directory that may not exist yet; `None` if its folder does not exist either.
fn canonical(path: &Path) -> Option<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Some(path);
    }
    let folder = match path.parent()? {
        folder if folder.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    Some(folder.canonicalize().ok()?.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_output_is_no_input_and_no_file_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["model", "adapter", "data"] {
            fs::create_dir(at(folder)).unwrap();
        }
        for file in ["model/config.json", "data/a.jsonl"] {
            fs::write(at(file), "{}").unwrap();
        }
        let adapters = AdapterOptions::one(at("adapter"));
        let data = at("data/a.jsonl");
        let inputs = Inputs::new(&at("model"), &adapters, [Some(&data), None]);
        for refused in [
            "data/a.jsonl",
            "model/../data/./a.jsonl",
            "data",
            "model",
            "model/config.json",
            "adapter/adapter_config.json",
        ] {
            let message = inputs.refuse_file("output", &at(refused)).unwrap_err();
            assert!(message.to_string().contains("which this run reads"));
        }
        for fine in [
            "data/b.jsonl",
            "model/out.jsonl",
            "adapter/runs/out.txt",
            "other",
            "none/at/all",
        ] {
            inputs.refuse_file("output", &at(fine)).unwrap();
        }
        // A directory beside the files of an input.
        inputs.refuse("output", &at("adapter/merged")).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("data/a.jsonl"), at("link.jsonl")).unwrap();
            assert!(inputs.refuse("output", &at("link.jsonl")).is_err());
        }
    }
}
