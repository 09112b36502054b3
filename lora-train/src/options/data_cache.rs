//! Place of the tokens of the training data.

use super::parse_word;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Place of the tokens of the training data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataCache {
    /// On disk for large files, where it is possible.
    #[default]
    Auto,
    /// In memory.
    Memory,
    /// In a file in the output directory, which is mapped into memory.
    Disk,
}

impl FromStr for DataCache {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_word(text)
    }
}
