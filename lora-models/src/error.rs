//! Error type of this crate.
//!
//! Every message names the file or tensor, the expected value and a remedy.

use lora_core::LoraError;
use std::path::{Path, PathBuf};

/// Number of names shown in a message; the others are only counted.
const NAMES_SHOWN: usize = 20;

/// Returns the beginning of a message on a file; empty without one.
fn of_path(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        String::new()
    } else {
        format!("{}: ", path.display())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Error in configuring, loading, running or exporting a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system could not read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },

    /// A JSON file does not parse, or lacks required fields.
    #[error("{}: unexpected JSON: {message}", path.display())]
    Json {
        /// File.
        path: PathBuf,
        /// Description of the error, with line and column if known.
        message: String,
    },

    /// A `config.json` has an option without support. Ignoring the option would silently give wrong numbers.
    #[error("{}: `{key}` is {value}, but this model supports {expected}", path.display())]
    UnsupportedConfig {
        /// Configuration file, or the model's name if the configuration came from code.
        path: PathBuf,
        /// Key in the configuration.
        key: String,
        /// Value found.
        value: String,
        /// Supported values.
        expected: String,
    },

    /// A directory is not that of a model.
    #[error("{}: {message}", path.display())]
    NotAModel {
        /// Directory.
        path: PathBuf,
        /// Content of the directory, and what to give instead.
        message: String,
    },

    /// A directory has none of the files that would do.
    #[error("{}: found none of {}; add one of them, or give the path of another model", path.display(), looked_for.join(", "))]
    MissingFile {
        /// Directory, or the path that does not exist.
        path: PathBuf,
        /// Names looked for, in order.
        looked_for: Vec<String>,
    },

    /// A file is larger than any honest file of its kind, so it was not read.
    #[error("{}: larger than {limit} bytes, the limit for a file of this kind", path.display())]
    TooLarge {
        /// File.
        path: PathBuf,
        /// Limit for such a file, in bytes.
        limit: u64,
    },

    /// A file violates its format: it is truncated, damaged or malicious.
    #[error("{}: {message}; download or export the file again", path.display())]
    Malformed {
        /// File.
        path: PathBuf,
        /// Description of the violation.
        message: String,
    },

    /// A file of weights changed after a model was read from it.
    #[error(
        "{}: the file changed while its weights were in use: {difference}; nothing was saved since; keep the base as it is during a run, and start this one again or resume it from a checkpoint",
        path.display()
    )]
    Changed {
        /// File.
        path: PathBuf,
        /// Change, as a clause.
        difference: String,
    },

    /// The checkpoint lacks tensors that the model needs.
    #[error(
        "{}the checkpoint lacks {}; it belongs to another architecture, or is incomplete",
        of_path(path),
        list_names(names)
    )]
    TensorMissing {
        /// Checkpoint; empty if the tensors are of no file.
        path: PathBuf,
        /// All missing names.
        names: Vec<String>,
    },

    /// The checkpoint has tensors that the model does not use.
    #[error(
        "{}the model does not use {} of the checkpoint; the checkpoint belongs to another architecture or task",
        of_path(path),
        list_names(names)
    )]
    TensorUnexpected {
        /// Checkpoint; empty if the tensors are of no file.
        path: PathBuf,
        /// All names left over.
        names: Vec<String>,
    },

    /// The shape of a tensor differs from the configuration.
    #[error(
        "{}tensor `{name}` has shape {found:?}, but the model needs {expected:?}; use the configuration of these weights",
        of_path(path)
    )]
    TensorShape {
        /// Checkpoint; empty if the tensor is of no file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Expected shape.
        expected: Vec<usize>,
        /// Shape found.
        found: Vec<usize>,
    },

    /// The number of outputs of the checkpoint's head differs from the number of labels.
    #[error(
        "the checkpoint's head `{name}` has {found} outputs, but there are {expected} labels; start a fresh head (`fresh_head`), or use the head's own labels"
    )]
    HeadMismatch {
        /// Name of the tensor.
        name: String,
        /// Number of labels.
        expected: usize,
        /// Number of outputs in the checkpoint.
        found: usize,
    },

    /// Modules are still randomly initialized, because neither the checkpoint nor the adapter has them: outputs would
    /// be meaningless.
    #[error(
        "neither the checkpoint nor the adapter has {}: it would keep random values (PEFT leaves a fresh pooler out of an adapter unless `modules_to_save` names it); train the adapter again with it",
        quoted(modules)
    )]
    StillRandom {
        /// Paths of the modules.
        modules: Vec<String>,
    },

    /// A tensor has a value that is infinite or NaN.
    #[error(
        "{}: tensor `{name}` has values that are not finite, such as {value}: the file is damaged, or was saved from a run that diverged; use an earlier one",
        path.display()
    )]
    NotFinite {
        /// File.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// First such value.
        value: f32,
    },

    /// A tensor has an unsuitable element type.
    #[error(
        "{}tensor `{name}` holds {found} elements, but {expected} was expected",
        of_path(path)
    )]
    TensorDtype {
        /// Checkpoint; empty if the tensor is of no file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Suitable element types.
        expected: String,
        /// Element type found.
        found: String,
    },

    /// A parameter is larger than the device binds in one buffer, and cannot be held in parts.
    #[error("`{name}` {shape:?} takes {:.1} MiB, and this device binds at most {:.1} MiB in one buffer; {advice}", mib(*bytes), mib(*limit))]
    TooLargeForDevice {
        /// Name of the parameter.
        name: String,
        /// Shape of the parameter.
        shape: Vec<usize>,
        /// Size of the buffer, in bytes.
        bytes: u64,
        /// Limit of the device, in bytes.
        limit: u64,
        /// A way out.
        advice: &'static str,
    },

    /// A finite value of a tensor would be infinite in the narrower type of an export.
    #[error("tensor `{name}` holds {value:e}, which is infinite as {dtype}; export as F32 or BF16")]
    TensorOverflow {
        /// Name of the tensor.
        name: String,
        /// First such value.
        value: f32,
        /// Element type of the export.
        dtype: String,
    },

    /// An export cannot be written as a checkpoint.
    #[error("cannot export to {}: {message}", path.display())]
    Export {
        /// File or directory of the export.
        path: PathBuf,
        /// Description of the obstacle.
        message: String,
    },

    /// A tokenizer cannot be built from its files, or failed on a text.
    #[error("tokenizer {}: {message}", path.display())]
    Tokenizer {
        /// File or directory of the tokenizer.
        path: PathBuf,
        /// Description of the error.
        message: String,
    },

    /// A chat template is malformed, refuses a conversation, or exceeds its limits.
    #[error("chat template {}: {message}", path.display())]
    ChatTemplate {
        /// File of the template, with its key if it is a part of the file.
        path: PathBuf,
        /// Description of the error, with the line of the template if it is known.
        message: String,
    },

    /// An adapter cannot be attached, read or written, or a directory cannot be replaced.
    #[error(transparent)]
    Lora(#[from] LoraError),

    /// A model given by name is not available: there is no such model, access is denied, or its download failed.
    #[error("{message}")]
    Hub {
        /// Description of the error, with the model or setting and a remedy.
        message: String,
    },

    /// Text cannot be generated as requested.
    #[error("generation: {message}")]
    Generation {
        /// Description of the error, with a remedy.
        message: String,
    },
}

impl ModelError {
    /// Adds the checkpoint to an error on a tensor that names none.
    pub(crate) fn at(mut self, checkpoint: &Path) -> Self {
        if let Self::TensorMissing { path, .. }
        | Self::TensorUnexpected { path, .. }
        | Self::TensorShape { path, .. }
        | Self::TensorDtype { path, .. } = &mut self
            && path.as_os_str().is_empty()
        {
            *path = checkpoint.into();
        }
        self
    }

    /// Builds an [`Io`](Self::Io) error at `path`, for `map_err`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// Turns an error of `lora-core` on a file that is no adapter into the one of this crate.
    pub(crate) fn of_file(error: LoraError) -> Self {
        match error {
            LoraError::Io { path, source } => Self::Io { path, source },
            LoraError::Malformed { path, message } => Self::Malformed { path, message },
            other => Self::Lora(other),
        }
    }

    /// Builds a [`Tokenizer`](Self::Tokenizer) error at `path`.
    pub(crate) fn tokenizer(path: &Path, message: impl Into<String>) -> Self {
        Self::Tokenizer {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    /// Builds a [`ChatTemplate`](Self::ChatTemplate) error at `path`.
    pub(crate) fn chat_template(path: &Path, message: impl Into<String>) -> Self {
        Self::ChatTemplate {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    /// Builds an [`Export`](Self::Export) error at `path`.
    pub(crate) fn export(path: &Path, message: impl Into<String>) -> Self {
        Self::Export {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    /// Builds a [`Json`](Self::Json) error at `path`.
    pub(crate) fn json(path: &Path, message: impl ToString) -> Self {
        Self::Json {
            path: path.to_path_buf(),
            message: message.to_string(),
        }
    }

    /// Builds a [`Hub`](Self::Hub) error.
    pub(crate) fn hub(message: impl Into<String>) -> Self {
        Self::Hub {
            message: message.into(),
        }
    }

    /// Builds a [`MissingFile`](Self::MissingFile) error at `path`.
    pub(crate) fn missing_file(path: &Path, looked_for: impl Into<Vec<String>>) -> Self {
        Self::MissingFile {
            path: path.to_path_buf(),
            looked_for: looked_for.into(),
        }
    }

    /// Builds a [`TensorMissing`](Self::TensorMissing) error for one tensor.
    pub(crate) fn missing(name: &str) -> Self {
        Self::TensorMissing {
            path: PathBuf::new(),
            names: vec![name.to_string()],
        }
    }

    /// Builds a [`TensorShape`](Self::TensorShape) error.
    pub(crate) fn shape(name: &str, expected: &[usize], found: &[usize]) -> Self {
        Self::TensorShape {
            path: PathBuf::new(),
            name: name.to_string(),
            expected: expected.to_vec(),
            found: found.to_vec(),
        }
    }

    /// Builds a [`Malformed`](Self::Malformed) error at `path`.
    pub(crate) fn malformed(path: &Path, message: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }
}

/// Formats ``3 tensors: `a`, `b`, `c` ``, sorted; the tail of a long list is only counted.
fn list_names(names: &[String]) -> String {
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let shown = quoted(sorted.iter().take(NAMES_SHOWN));
    let rest = match sorted.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let plural = if sorted.len() == 1 { "" } else { "s" };
    format!("{} tensor{plural}: {shown}{rest}", sorted.len())
}

/// Formats `` `a`, `b` ``.
fn quoted(names: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let names = names.into_iter().map(|name| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_on_a_tensor_names_its_file() {
        let path = Path::new("m/model.safetensors");
        let message = ModelError::missing("w").at(path).to_string();
        assert!(
            message.starts_with("m/model.safetensors: the checkpoint lacks 1 tensor: `w`;"),
            "{message}"
        );
        let message = ModelError::shape("w", &[1], &[2]).to_string();
        assert!(message.starts_with("tensor `w` has shape"), "{message}");
    }

    #[test]
    fn name_lists_are_sorted_and_cut() {
        assert_eq!(list_names(&["b".into(), "a".into()]), "2 tensors: `a`, `b`");
        assert_eq!(list_names(&["a".into()]), "1 tensor: `a`");
        let many: Vec<String> = (0..25).map(|i| format!("w{i:02}")).collect();
        let text = list_names(&many);
        assert!(text.starts_with("25 tensors: `w00`"), "{text}");
        assert!(text.ends_with("`w19` and 5 more"), "{text}");
    }
}
