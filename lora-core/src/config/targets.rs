//! Targets of an adapter: [`TargetModules`] and [`ExcludeModules`].

use super::pattern::full_match;
use crate::error::LoraError;
use crate::layout::ends_in;
use regex::Regex;
use serde::{Deserialize, Serialize};

/// Selection of the modules that get an adapter.
///
/// A module's name is its dotted path, such as `transformer.h.0.attn.c_attn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TargetsInFile", into = "TargetsInFile")]
pub enum TargetModules {
    /// Each entry is a whole path or its last components: `c_attn` adapts every `….c_attn`.
    ///
    /// An entry may name slices of a projection that the model's [`Architecture`](crate::Architecture) lists as fused:
    /// `c_attn[q,v]` gives q and v an adapter each, of the configured rank.
    Names(Vec<String>),
    /// A regular expression that must match the whole path.
    Pattern(String),
    /// Every linear layer except output layers: PEFT's `"all-linear"`.
    AllLinear,
}

impl TargetModules {
    /// PEFT's name for [`AllLinear`](Self::AllLinear).
    pub const ALL_LINEAR: &'static str = "all-linear";

    /// Selects modules by path or by the end of it.
    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        TargetModules::Names(names.into_iter().map(Into::into).collect())
    }

    /// Selects the modules whose whole path matches a regular expression.
    pub fn regex(pattern: impl Into<String>) -> Self {
        TargetModules::Pattern(pattern.into())
    }

    /// Compiles the selection.
    ///
    /// # Errors
    /// [`LoraError::InvalidPattern`].
    pub(crate) fn selector(&self) -> Result<Selector<'_>, LoraError> {
        Ok(match self {
            Self::Names(names) => Selector::Names(names),
            Self::Pattern(pattern) => Selector::Regex(full_match("target pattern", pattern)?),
            Self::AllLinear => Selector::All,
        })
    }

    /// Returns true if a name or the pattern selects the module at `path`, a slice of it included.
    ///
    /// `all-linear` selects by the kind of layer and names no module. An invalid pattern matches nothing here; it is an
    /// error when the adapter is attached.
    pub fn names_module(&self, path: &str) -> bool {
        *self != Self::AllLinear && self.selector().is_ok_and(|selector| selector.selects(path))
    }
}

/// Compiled selection of modules by their paths.
pub(crate) enum Selector<'a> {
    Names(&'a [String]),
    Regex(Regex),
    All,
}

impl Selector<'_> {
    /// Returns true if the module at `path`, or a slice of it, is selected.
    pub fn selects(&self, path: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| ends_in(path, without_slices(name))),
            Self::Regex(regex) => regex.is_match(path),
            Self::All => true,
        }
    }
}

/// Returns the name of a target without its slices.
pub(crate) fn without_slices(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
}

/// [`TargetModules`] as PEFT's files hold them.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a list of module names or a string")]
enum TargetsInFile {
    Names(Vec<String>),
    Text(String),
}

impl From<TargetsInFile> for TargetModules {
    fn from(targets: TargetsInFile) -> Self {
        match targets {
            TargetsInFile::Names(names) => Self::Names(names),
            TargetsInFile::Text(text) if text == Self::ALL_LINEAR => Self::AllLinear,
            TargetsInFile::Text(pattern) => Self::Pattern(pattern),
        }
    }
}

impl From<TargetModules> for TargetsInFile {
    fn from(targets: TargetModules) -> Self {
        match targets {
            TargetModules::Names(names) => Self::Names(names),
            TargetModules::Pattern(pattern) => Self::Text(pattern),
            TargetModules::AllLinear => Self::Text(TargetModules::ALL_LINEAR.into()),
        }
    }
}

/// Targets that get no adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ExcludeModules {
    /// Paths or ends of paths.
    Names(Vec<String>),
    /// A regular expression that must match the whole path.
    Pattern(String),
}

impl ExcludeModules {
    /// Compiles the selection.
    ///
    /// # Errors
    /// [`LoraError::InvalidPattern`].
    pub(crate) fn selector(&self) -> Result<Selector<'_>, LoraError> {
        Ok(match self {
            Self::Names(names) => Selector::Names(names),
            Self::Pattern(pattern) => Selector::Regex(full_match("exclusion pattern", pattern)?),
        })
    }

    /// Returns true if a name or the pattern excludes the module at `path`.
    pub fn names_module(&self, path: &str) -> bool {
        self.selector().is_ok_and(|selector| selector.selects(path))
    }
}
