//! What can go wrong, with enough in each variant to mend it.

use std::path::PathBuf;

/// Errors of `lora-core`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// An option of a [`LoraConfig`](crate::LoraConfig) is outside its range.
    #[error("LoRA option `{option}` is {found}, expected {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value given.
        found: String,
        /// The values allowed.
        expected: String,
    },
    /// An entry of the target modules, exclusions, layers or patterns matches no module.
    #[error("{what} `{entry}` matches no module of the model; {}", hint(.candidates))]
    NoMatch {
        /// What kind of entry it is, such as "target module" or "rank pattern".
        what: &'static str,
        /// The entry.
        entry: String,
        /// The names closest to the entry.
        candidates: Vec<String>,
    },
    /// A regular expression does not compile.
    #[error("{what} `{pattern}` is not a valid regular expression: {message}")]
    InvalidPattern {
        /// What the pattern is for.
        what: &'static str,
        /// The pattern.
        pattern: String,
        /// The compiler's message.
        message: String,
    },
    /// A target cannot take what the configuration asks of it.
    #[error("target `{module}`: {message}")]
    UnsupportedTarget {
        /// Path of the module.
        module: String,
        /// What does not work there, and what would.
        message: String,
    },
    /// The module already has adapters.
    #[error("`{module}` already has a LoRA adapter; detach or merge it first")]
    AlreadyAttached {
        /// Path of the first module that has one.
        module: String,
    },
    /// A module and an adapter description do not belong together.
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
        /// The name.
        name: String,
        /// The names that there are, the closest first.
        candidates: Vec<String>,
    },
    /// An adapter of this name is on the base already.
    #[error("there is an adapter `{name}` already; remove it first or choose another name")]
    DuplicateAdapter {
        /// The name.
        name: String,
    },
    /// A name that no adapter may have.
    #[error("`{}` is no name for an adapter: it {message}, and a directory is to be called so", .name.escape_debug())]
    AdapterName {
        /// The name.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// An adapter changes something that cannot differ between the examples of a batch.
    #[error(
        "adapter `{adapter}` cannot be mixed with others in one batch: it changes `{parameter}`, {message}; activate \
         one adapter at a time"
    )]
    NotPerExample {
        /// The adapter's name.
        adapter: String,
        /// Path of the parameter.
        parameter: String,
        /// Why it has to be one for the whole batch.
        message: String,
    },
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The place to write to is taken.
    #[error("{} already exists; choose another place or ask for it to be overwritten", path.display())]
    AlreadyExists {
        /// The file or directory.
        path: PathBuf,
    },
    /// A file does not follow its format.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what was expected.
        message: String,
    },
    /// A key of `adapter_config.json` asks for something that would change the arithmetic and is
    /// not supported.
    #[error("{}: `{key}` = {value} is not supported: {message}", path.display())]
    UnsupportedKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// Why, and what would be accepted.
        message: String,
    },
    /// An adapter was trained on another base than it is put on.
    #[error("{}: {difference}; take the base that it was trained on, or do without `--strict-base`", path.display())]
    OtherBase {
        /// The adapter's directory.
        path: PathBuf,
        /// What is known to differ.
        difference: crate::fingerprint::BaseDifference,
    },
    /// Tensors that the configuration calls for are not in the file.
    #[error("{}: missing tensor{}: {}", path.display(), plural(.names), list(.names))]
    MissingTensors {
        /// The file.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// The file holds tensors that belong to nothing in the model.
    #[error("{}: unexpected tensor{}: {}{}", path.display(), plural(.names), list(.names), hint_prefix(.names))]
    UnexpectedTensors {
        /// The file.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// A tensor has another shape than the model and configuration call for.
    #[error("{}: tensor `{name}` has shape {found:?}, expected {expected:?}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape called for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
}

impl LoraError {
    /// Wraps an input or output error with its path; for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> LoraError {
        let path = path.into();
        move |source| LoraError::Io { path, source }
    }
}

fn plural(names: &[String]) -> &'static str {
    if names.len() == 1 { "" } else { "s" }
}

/// At most eight names, and how many more there are.
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
        [] => "there is none at all".into(),
        some => format!("there is {}", list(some)),
    }
}

/// A PEFT file without its prefix loads in Python as an adapter that does nothing.
fn hint_prefix(names: &[String]) -> &'static str {
    let prefix = crate::file::PREFIX;
    if names.iter().any(|name| !name.starts_with(prefix)) {
        " (PEFT's names start with `base_model.model.`)"
    } else {
        ""
    }
}
