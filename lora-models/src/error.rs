//! The one error type of this crate.
//!
//! Every message names the file or tensor it is about, what was expected of it and what would put it right.

use std::path::{Path, PathBuf};

/// Names shown in a message before the rest is only counted.
const NAMES_SHOWN: usize = 20;

/// What can go wrong while a model is configured, loaded, run or exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system could not read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// A JSON file does not parse, or does not hold the fields that its kind must have.
    #[error("{}: not the JSON that was expected: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What was wrong, with line and column where known.
        message: String,
    },

    /// A `config.json` asks for something that this crate does not compute. Computing something near it instead
    /// would give wrong numbers in silence.
    #[error("{}: `{key}` is {value}, but this model supports {expected}", path.display())]
    UnsupportedConfig {
        /// The configuration file, or the model's name where it came from code.
        path: PathBuf,
        /// The key in the configuration.
        key: String,
        /// The value found.
        value: String,
        /// The values that would do.
        expected: String,
    },

    /// None of the files that would do is there.
    #[error("{}: found none of {}; put one of them there, or give the path of another model", path.display(), looked_for.join(", "))]
    MissingFile {
        /// The directory, or the path that does not exist.
        path: PathBuf,
        /// The names looked for, in that order.
        looked_for: Vec<String>,
    },

    /// A file is larger than any honest file of its kind, so it was not read.
    #[error("{}: larger than {limit} bytes, the most read from a file of this kind", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most bytes read from such a file.
        limit: u64,
    },

    /// A file breaks the rules of its format: it is truncated, damaged, or made to harm.
    #[error("{}: {message}; download or export the file again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The rule that it breaks.
        message: String,
    },

    /// The model needs tensors that the checkpoint lacks.
    #[error(
        "the checkpoint lacks {}; it belongs to another architecture, or is incomplete",
        list_names(names)
    )]
    TensorMissing {
        /// All the missing names.
        names: Vec<String>,
    },

    /// The checkpoint holds tensors that the model has no place for.
    #[error(
        "the model has no place for {} of the checkpoint; it belongs to another architecture or task",
        list_names(names)
    )]
    TensorUnexpected {
        /// All the names left over.
        names: Vec<String>,
    },

    /// A tensor has another shape than the configuration says.
    #[error(
        "tensor `{name}` has shape {found:?}, but the model needs {expected:?}; do the configuration and the weights belong together?"
    )]
    TensorShape {
        /// The tensor.
        name: String,
        /// The shape needed.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },

    /// The checkpoint's head has another number of outputs than labels were asked for.
    #[error(
        "the checkpoint's head `{name}` has {found} outputs, but there are {expected} labels; start a fresh head (`fresh_head`), or use the head's own labels"
    )]
    HeadMismatch {
        /// The tensor.
        name: String,
        /// The number of labels.
        expected: usize,
        /// The number of outputs in the checkpoint.
        found: usize,
    },

    /// Something of a model started at random and an adapter does not bring it: what the model says
    /// would mean nothing.
    #[error(
        "neither the checkpoint nor the adapter has {}: it would stay at random values (PEFT leaves a fresh pooler out of an adapter unless `modules_to_save` names it); train the adapter again, with it",
        modules.iter().map(|module| format!("`{module}`")).collect::<Vec<_>>().join(", ")
    )]
    StillRandom {
        /// The modules.
        modules: Vec<String>,
    },

    /// A tensor has an element type that cannot be used for what it was asked for.
    #[error("tensor `{name}` holds {found} elements, but {expected} was expected")]
    TensorDtype {
        /// The tensor.
        name: String,
        /// The element types that would do.
        expected: String,
        /// The element type found.
        found: String,
    },

    /// A finite value of a tensor is infinite in the narrower type it was to be written as.
    #[error("tensor `{name}` holds {value:e}, which is infinite as {dtype}; export as F32 or BF16")]
    TensorOverflow {
        /// The tensor.
        name: String,
        /// The first such value.
        value: f32,
        /// The type it does not fit in.
        dtype: String,
    },

    /// What was to be exported cannot be written as a checkpoint.
    #[error("cannot export to {}: {message}", path.display())]
    Export {
        /// The file or directory to be written.
        path: PathBuf,
        /// What stands in the way.
        message: String,
    },

    /// A tokenizer cannot be built from its files, or failed on a text.
    #[error("tokenizer {}: {message}", path.display())]
    Tokenizer {
        /// The tokenizer's file or directory.
        path: PathBuf,
        /// What went wrong.
        message: String,
    },

    /// An adapter cannot be attached, read or written, or a directory cannot be replaced.
    #[error(transparent)]
    Lora(#[from] lora_core::LoraError),

    /// A model named by a user is not to be had: there is none of that name, it may not be read, or its download failed.
    #[error("{message}")]
    Hub {
        /// Which model or setting, what is wrong, and what would do.
        message: String,
    },

    /// Text cannot be generated as asked.
    #[error("generation: {message}")]
    Generation {
        /// What is wrong with the request, and what would do.
        message: String,
    },
}

impl ModelError {
    /// An [`Io`](Self::Io) error at `path`, in the shape that `map_err` takes.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// A [`Malformed`](Self::Malformed) error at `path`.
    pub(crate) fn malformed(path: &Path, message: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }
}

/// ``3 tensors: `a`, `b`, `c` ``, sorted, the tail of a long list only counted.
fn list_names(names: &[String]) -> String {
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let shown: Vec<String> = sorted
        .iter()
        .take(NAMES_SHOWN)
        .map(|name| format!("`{name}`"))
        .collect();
    let rest = match sorted.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let noun = if sorted.len() == 1 {
        "tensor"
    } else {
        "tensors"
    };
    format!("{} {noun}: {}{rest}", sorted.len(), shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

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
