//! Errors, with enough detail in each variant to fix the cause.

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
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A line or row of a data file does not match the format.
    #[error("{}, line {line}: {message}", path.display())]
    DataLine {
        /// The data file.
        path: PathBuf,
        /// The line, counted from 1; for a row over several lines, the first.
        line: usize,
        /// Description of the problem, and the expected content.
        message: String,
    },
    /// A data file contains no usable example.
    #[error("{} contains no usable example: {message}", path.display())]
    DataEmpty {
        /// The data file, or the first of several.
        path: PathBuf,
        /// The reason, and a way to fix it.
        message: String,
    },
    /// A data file does not have the expected format, or its format cannot be detected.
    #[error("{}: {message}", path.display())]
    DataFormat {
        /// The data file.
        path: PathBuf,
        /// Description of the problem, and the expected content.
        message: String,
    },
    /// A table lacks a column.
    #[error(
        "{} has no column `{column}`; its columns are {}; name the column to read, or rename it in the file",
        path.display(),
        listed(available)
    )]
    Column {
        /// The data file.
        path: PathBuf,
        /// The requested column.
        column: String,
        /// The columns of the file.
        available: Vec<String>,
    },
    /// An option has an invalid value, alone or in combination with another.
    #[error("option `{option}`: {message}")]
    Config {
        /// The option's name.
        option: String,
        /// Description of the problem, and the valid values.
        message: String,
    },
    /// A checkpoint of a training run cannot be written, read or resumed from.
    #[error("checkpoint {}: {message}", path.display())]
    Checkpoint {
        /// The checkpoint's directory, or the faulty file in it.
        path: PathBuf,
        /// Description of the problem, and the expected content.
        message: String,
    },
    /// The loss became infinite or NaN; further steps would destroy the adapter.
    #[error(
        "the loss at step {step} is {loss}, on {batch}; a lower learning rate, gradient clipping or \
         32-bit floating point usually helps"
    )]
    NonFiniteLoss {
        /// The optimizer step, counted from 1.
        step: usize,
        /// Description of the batch, by [`SampleBatch::describe`](crate::data::SampleBatch::describe).
        batch: String,
        /// The loss.
        loss: f64,
    },
    /// The loss or the gradients were not finite in several steps in a row.
    #[error(
        "{steps} steps in a row were left out, because their loss or gradients were not finite; the last is step {step}, \
         on {batch}; a lower learning rate, gradient clipping or `--precision f32` usually helps"
    )]
    NonFiniteSteps {
        /// Number of the steps.
        steps: usize,
        /// The last of them, counted from 1.
        step: usize,
        /// Description of its batch, by [`SampleBatch::describe`](crate::data::SampleBatch::describe).
        batch: String,
    },
    /// The output already exists, and overwriting was not requested.
    #[error("{} already exists; choose another output, or remove it first", path.display())]
    OutputExists {
        /// The file or directory that exists.
        path: PathBuf,
    },
    /// A metric cannot be computed from its input.
    #[error("{metric}: {message}")]
    Metric {
        /// The metric's name.
        metric: &'static str,
        /// Description of the problem, and the expected input.
        message: String,
    },
    /// The outputs of a merged model differ from those of the base with its adapter; nothing was written.
    #[error(
        "the outputs of the merged model differ from those of the base with its adapter, so nothing was written; write \
         another element type (`--dtype`), or allow a larger difference (`--tolerance`): {measured}"
    )]
    MergeDiffers {
        /// Largest difference of a logit, relative to the largest logit.
        relative: f64,
        /// Allowed relative difference.
        tolerance: f64,
        /// All measurements, and the weight with the largest error.
        measured: String,
    },
    /// The first step on a device differs from the CPU's by more than rounding; nothing was trained.
    #[error(
        "the first step on {device} differs from that on the CPU, so nothing was trained: {measured}. `lora doctor` names the \
         operation that is wrong; a newer driver, another backend, or a build without kernel fusion \
         (`--no-default-features --features flex,BACKEND`) may be right; `--verify-device=false` trains all the same"
    )]
    DeviceDiffers {
        /// Name of the device.
        device: String,
        /// Loss and gradients on both.
        measured: String,
    },
    /// One of several ranks has ended, or does not do what the others do.
    #[error("rank {rank} of {ranks} {message}")]
    Rank {
        /// The rank, counted from 0.
        rank: usize,
        /// Number of ranks.
        ranks: usize,
        /// Description of the problem.
        message: String,
    },
    /// Error of a model, its checkpoint or its tokenizer.
    #[error(transparent)]
    Model(#[from] lora_models::ModelError),
    /// Error of an adapter or its files.
    #[error(transparent)]
    Lora(#[from] lora_core::LoraError),
    /// Error of Burn, for example a tensor that cannot be read back.
    #[error("Burn: {message}")]
    Burn {
        /// Burn's message and the operation that failed.
        message: String,
    },
}

impl TrainError {
    /// Creates an [`Io`](Self::Io) error on `path`, for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Creates a [`DataLine`](Self::DataLine) error on line `line` of `path`.
    pub fn data_line(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self::DataLine {
            path: path.to_path_buf(),
            line,
            message: message.into(),
        }
    }

    /// Creates a [`DataEmpty`](Self::DataEmpty) error on `path`.
    pub fn data_empty(path: &Path, message: impl Into<String>) -> Self {
        Self::DataEmpty {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    /// Creates a [`DataFormat`](Self::DataFormat) error on `path`.
    pub fn data_format(path: &Path, message: impl Into<String>) -> Self {
        Self::DataFormat {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    /// Creates a [`Rank`](Self::Rank) error.
    pub fn rank(rank: usize, ranks: usize, message: impl Into<String>) -> Self {
        Self::Rank {
            rank,
            ranks,
            message: message.into(),
        }
    }

    /// Creates a [`Burn`](Self::Burn) error.
    pub fn burn(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Burn { message }
    }

    /// Creates a [`Config`](Self::Config) error on `option`.
    pub fn config(option: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config {
            option: option.into(),
            message: message.into(),
        }
    }
}

/// Lists names in backticks, separated by commas; at most the first 20.
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
