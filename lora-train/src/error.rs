//! What can go wrong, with enough in each variant to mend it.

use std::path::{Path, PathBuf};

/// Errors of `lora-train`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// One line or row of a data file is not what the format asks for.
    #[error("{}, line {line}: {message}", path.display())]
    DataLine {
        /// The data file.
        path: PathBuf,
        /// The line, counted from 1; of a row over several lines, the first.
        line: usize,
        /// What is wrong with it, and what was expected.
        message: String,
    },
    /// Nothing to train on or to evaluate is left of a data file.
    #[error("{} holds nothing to use: {message}", path.display())]
    DataEmpty {
        /// The data file, or the first of several.
        path: PathBuf,
        /// Why nothing is left, and what would fix it.
        message: String,
    },
    /// A data file as a whole is not in the format it is read as, or its format cannot be told.
    #[error("{}: {message}", path.display())]
    DataFormat {
        /// The data file.
        path: PathBuf,
        /// What is wrong with it, and what was expected.
        message: String,
    },
    /// A table of named columns lacks one.
    #[error(
        "{} has no column `{column}`; its columns are {}; name the column to read, or rename it in the file",
        path.display(),
        listed(available)
    )]
    Column {
        /// The data file.
        path: PathBuf,
        /// The column that was looked for.
        column: String,
        /// The columns that the file has.
        available: Vec<String>,
    },
    /// An option has a value that cannot work, alone or together with another.
    #[error("option `{option}`: {message}")]
    Config {
        /// The option's name.
        option: String,
        /// What is wrong with its value, and which values would do.
        message: String,
    },
    /// A checkpoint of a training run cannot be written, read or resumed from.
    #[error("checkpoint {}: {message}", path.display())]
    Checkpoint {
        /// The checkpoint's directory, or the file in it that is at fault.
        path: PathBuf,
        /// What is wrong with it, and what was expected.
        message: String,
    },
    /// The loss became infinite or not a number, so further steps would only spoil the adapter.
    #[error(
        "the loss at step {step} is {loss}, on {batch}; a lower learning rate, gradient clipping or \
         32-bit floating point usually helps"
    )]
    NonFiniteLoss {
        /// The optimizer step, counted from 1.
        step: usize,
        /// Which examples the batch held, as [`SampleBatch::describe`](crate::data::SampleBatch::describe) says it.
        batch: String,
        /// The loss.
        loss: f64,
    },
    /// The place to write to is taken, and nothing is overwritten unasked.
    #[error("{} already exists; choose another output, or remove it first", path.display())]
    OutputExists {
        /// The file or directory that exists.
        path: PathBuf,
    },
    /// A metric cannot be computed on what it was given.
    #[error("{metric}: {message}")]
    Metric {
        /// The metric's name.
        metric: &'static str,
        /// What is wrong with its input, and what was expected.
        message: String,
    },
    /// A merged model does not say what the base with its adapter says; nothing was written.
    #[error(
        "the merged model is not what the base with its adapter is, so nothing was written; write another element type \
         (`--dtype`), or allow more (`--tolerance`): {measured}"
    )]
    MergeDiffers {
        /// The largest difference of a logit, as a share of the largest one.
        relative: f64,
        /// What is allowed.
        tolerance: f64,
        /// All that was measured, and the weight with the largest error.
        measured: String,
    },
    /// A model, its checkpoint or its tokenizer is at fault.
    #[error(transparent)]
    Model(#[from] lora_models::ModelError),
    /// The adapters, or their files, are at fault.
    #[error(transparent)]
    Lora(#[from] lora_core::LoraError),
    /// Burn failed below us: a tensor that cannot be read back, a record that cannot be stored.
    #[error("Burn: {message}")]
    Burn {
        /// Burn's own message, and what was being done.
        message: String,
    },
}

impl TrainError {
    /// An [`Io`](Self::Io) error on `path`, for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// A [`DataLine`](Self::DataLine) error on line `line` of `path`.
    pub fn data_line(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self::DataLine {
            path: path.to_path_buf(),
            line,
            message: message.into(),
        }
    }

    /// A [`DataEmpty`](Self::DataEmpty) error on `path`.
    pub fn data_empty(path: &Path, message: impl Into<String>) -> Self {
        Self::DataEmpty {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    /// A [`DataFormat`](Self::DataFormat) error on `path`.
    pub fn data_format(path: &Path, message: impl Into<String>) -> Self {
        Self::DataFormat {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    /// A [`Config`](Self::Config) error on `option`.
    pub fn config(option: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config {
            option: option.into(),
            message: message.into(),
        }
    }
}

/// The names between backticks, with commas; the first ones of a table too wide to print.
pub(crate) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 20;
    if names.is_empty() {
        return "none".to_string();
    }
    let quoted: Vec<String> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect();
    let more = names.len() - quoted.len();
    if more == 0 {
        quoted.join(", ")
    } else {
        format!("{} and {more} more", quoted.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_named_by_file_and_number() {
        let error = TrainError::data_line(Path::new("train.jsonl"), 7, "expected an object");
        assert_eq!(error.to_string(), "train.jsonl, line 7: expected an object");
    }

    #[test]
    fn a_missing_column_lists_the_columns_there_are() {
        let error = TrainError::Column {
            path: "train.csv".into(),
            column: "text".into(),
            available: vec!["sentence".into(), "label".into()],
        };
        let message = error.to_string();
        assert!(message.contains("no column `text`"), "{message}");
        assert!(message.contains("`sentence`, `label`"), "{message}");
    }

    #[test]
    fn an_io_error_keeps_its_source() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = TrainError::io("gone.txt")(missing);
        assert!(error.to_string().starts_with("gone.txt: "));
        assert!(matches!(error, TrainError::Io { .. }));
        assert!(std::error::Error::source(&error).is_some());
    }
}
