//! Error type of this crate; each variant has the names and values needed to fix the cause.

mod base_difference;

pub use base_difference::BaseDifference;

use std::path::PathBuf;

/// Errors of `lora-core`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// An option of a [`LoraConfig`](crate::LoraConfig) is outside its range.
    #[error("LoRA option `{option}` is {found}, expected {expected}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// Value that was given.
        found: String,
        /// Values that are allowed.
        expected: String,
    },
    /// An entry of the target modules, exclusions, layers or patterns matches no module.
    #[error("{what} `{entry}` matches no module of the model; {}", hint(.candidates))]
    NoMatch {
        /// Kind of entry, such as "target module" or "rank pattern".
        what: &'static str,
        /// Text of the entry.
        entry: String,
        /// The names closest to the entry.
        candidates: Vec<String>,
    },
    /// A regular expression does not compile.
    #[error("{what} `{pattern}` is not a valid regular expression: {message}")]
    InvalidPattern {
        /// Purpose of the pattern.
        what: &'static str,
        /// Text of the pattern.
        pattern: String,
        /// Message of the regex compiler.
        message: String,
    },
    /// A target does not support what the configuration asks for.
    #[error("target `{module}`: {message}")]
    UnsupportedTarget {
        /// Path of the module.
        module: String,
        /// Unsupported feature, and what would work.
        message: String,
    },
    /// The module already has adapters.
    #[error("`{module}` already has a LoRA adapter; detach or merge it first")]
    AlreadyAttached {
        /// Path of the first adapted module.
        module: String,
    },
    /// A module does not have the adapters that its report lists.
    #[error(
        "the module has no LoRA adapter on `{module}`: was it attached to another model, or merged?"
    )]
    NotAttached {
        /// Path of the module.
        module: String,
    },
    /// No adapter of this name is on the base.
    #[error("there is no adapter `{name}`; {}", adapter_hint(.candidates))]
    UnknownAdapter {
        /// Name that was asked for.
        name: String,
        /// Names of the adapters that exist, the closest first.
        candidates: Vec<String>,
    },
    /// An adapter of this name is on the base already.
    #[error("an adapter named `{name}` already exists; remove it first or choose another name")]
    DuplicateAdapter {
        /// Name of the adapter.
        name: String,
    },
    /// An adapter cannot have this name.
    #[error("`{}` is not a valid adapter name: it {message}, and the adapter is saved in a directory of this name", .name.escape_debug())]
    AdapterName {
        /// Name that was given.
        name: String,
        /// Reason, as a verb phrase.
        message: String,
    },
    /// An adapter changes something that cannot differ between the examples of a batch.
    #[error(
        "adapter `{adapter}` cannot be mixed with others in one batch: it changes `{parameter}`, {message}; activate \
         one adapter at a time"
    )]
    NotPerExample {
        /// Name of the adapter.
        adapter: String,
        /// Path of the parameter.
        parameter: String,
        /// Reason why it must be the same for the whole batch.
        message: String,
    },
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The file or directory to write already exists.
    #[error("{} already exists; choose another path, or allow overwriting", path.display())]
    AlreadyExists {
        /// Path of the file or directory.
        path: PathBuf,
    },
    /// A path is not the directory of an adapter.
    #[error("{}: {message}", path.display())]
    NotAnAdapter {
        /// Path that was given.
        path: PathBuf,
        /// Content of the path, and what to give instead.
        message: String,
    },
    /// Another process writes to the directory.
    #[error(
        "{} is written by {holder}; wait until it has ended, or choose another output",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Description of the process: its id, its host, and since when it has the directory.
        holder: String,
    },
    /// A file does not follow its format.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// Path of the file.
        path: PathBuf,
        /// Problem, and what was expected.
        message: String,
    },
    /// A key of `adapter_config.json` asks for something that would change the arithmetic and is
    /// not supported.
    #[error("{}: `{key}` = {value} is not supported: {message}", path.display())]
    UnsupportedKey {
        /// Path of the file.
        path: PathBuf,
        /// Name of the key.
        key: String,
        /// Value, as JSON.
        value: String,
        /// Reason, and what would be accepted.
        message: String,
    },
    /// An adapter was trained on another base than the one it is attached to.
    #[error("{}: {difference}; use the base that it was trained on, or leave out `--strict-base`", path.display())]
    OtherBase {
        /// Directory of the adapter.
        path: PathBuf,
        /// Known difference.
        difference: BaseDifference,
    },
    /// The file lacks tensors that the configuration calls for.
    #[error("{}: missing tensor{}: {}", path.display(), plural(.names), list(.names))]
    MissingTensors {
        /// Path of the file.
        path: PathBuf,
        /// Names of the tensors.
        names: Vec<String>,
    },
    /// The file holds tensors that belong to nothing in the model.
    #[error("{}: unexpected tensor{}: {}{}", path.display(), plural(.names), list(.names), hint_prefix(.names))]
    UnexpectedTensors {
        /// Path of the file.
        path: PathBuf,
        /// Names of the tensors.
        names: Vec<String>,
    },
    /// A tensor has another shape than the model and configuration call for.
    #[error("{}: tensor `{name}` has shape {found:?}, expected {expected:?}", path.display())]
    TensorShape {
        /// Path of the file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Expected shape.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
}

impl LoraError {
    /// Returns a function that adds the path to an I/O error, for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> LoraError {
        let path = path.into();
        move |source| LoraError::Io { path, source }
    }

    /// Returns the error of a file that does not follow its format.
    pub(crate) fn malformed(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        let (path, message) = (path.into(), message.into());
        Self::Malformed { path, message }
    }

    /// Returns the error of an option outside its range.
    pub(crate) fn invalid_option(
        option: &'static str,
        found: impl ToString,
        expected: impl ToString,
    ) -> Self {
        Self::InvalidOption {
            option,
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }

    /// Returns the error of a target that does not support what the configuration asks for.
    pub(crate) fn unsupported_target(module: &str, message: impl Into<String>) -> Self {
        Self::UnsupportedTarget {
            module: module.into(),
            message: message.into(),
        }
    }

    /// Returns the error of a module without the adapters that its report lists.
    pub(crate) fn not_attached(module: &str) -> Self {
        Self::NotAttached {
            module: module.into(),
        }
    }
}

fn plural(names: &[String]) -> &'static str {
    if names.len() == 1 { "" } else { "s" }
}

/// Lists at most eight names, and the number of the others.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

fn hint(candidates: &[String]) -> String {
    match candidates {
        [] => "it has no module that can be adapted".into(),
        some => format!("closest: {}", list(some)),
    }
}

fn adapter_hint(candidates: &[String]) -> String {
    match candidates {
        [] => "there are no adapters".into(),
        some => format!("available: {}", list(some)),
    }
}

/// Points out a missing prefix: Python loads such a PEFT file as an adapter without effect.
fn hint_prefix(names: &[String]) -> &'static str {
    if names
        .iter()
        .any(|name| !name.starts_with("base_model.model."))
    {
        " (PEFT's names start with `base_model.model.`)"
    } else {
        ""
    }
}
