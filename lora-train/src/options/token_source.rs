//! The option for tokens whose rows of the embedding are trained.

use lora_core::files::read_bounded;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::TrainError;

/// Maximum size of a file with tokens, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// Tokens whose rows of the embedding are trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Value", into = "Value")]
pub enum TokenSource {
    /// As many tokens at the end of the tokenizer's vocabulary.
    Count(usize),
    /// File with a token in each line.
    File(PathBuf),
}

/// Value in a recipe: a number, or a path. A number may also stand in quotes.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number of tokens, or a file with them"
)]
enum Value {
    Count(usize),
    Text(PathBuf),
}

impl From<PathBuf> for TokenSource {
    fn from(path: PathBuf) -> Self {
        let count = path.to_str().and_then(|text| text.parse().ok());
        count.map_or(Self::File(path), Self::Count)
    }
}

impl FromStr for TokenSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(PathBuf::from(text).into())
    }
}

impl From<Value> for TokenSource {
    fn from(value: Value) -> Self {
        match value {
            Value::Count(count) => Self::Count(count),
            Value::Text(path) => path.into(),
        }
    }
}

impl From<TokenSource> for Value {
    fn from(source: TokenSource) -> Self {
        match source {
            TokenSource::Count(count) => Self::Count(count),
            TokenSource::File(path) => Self::Text(path),
        }
    }
}

impl TokenSource {
    /// Returns the path of the file, if there is one.
    pub fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::Count(_) => None,
            Self::File(path) => Some(path),
        }
    }

    /// Describes the tokens by their number and a hash, wherever their file lies.
    ///
    /// # Errors
    /// If the file cannot be read, or is no list of tokens.
    pub(crate) fn summary(&self) -> Result<String, TrainError> {
        Ok(match self {
            Self::Count(count) => format!("{count} tokens"),
            Self::File(path) => {
                let tokens = read_tokens(path)?;
                let hash = Sha256::digest(tokens.join("\n"));
                let digits: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{} tokens, {digits}", tokens.len())
            }
        })
    }
}

/// Reads one token a line; the spaces around it are no part of it.
///
/// # Errors
/// If the file cannot be read, has no token, or has one twice.
pub(crate) fn read_tokens(path: &Path) -> Result<Vec<String>, TrainError> {
    let bytes = read_bounded(path, FILE_LIMIT)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        TrainError::data_format(path, "is not UTF-8, expected a token in each line")
    })?;
    let mut tokens: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if tokens.iter().any(|token| token == line) {
            return Err(TrainError::data_format(path, format!("has `{line}` twice")));
        }
        tokens.push(line.into());
    }
    if tokens.is_empty() {
        return Err(TrainError::data_format(
            path,
            "has no token, expected one in each line",
        ));
    }
    Ok(tokens)
}
