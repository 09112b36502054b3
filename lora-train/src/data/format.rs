//! Formats of data files, and how a file's format is detected.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::lines::first_line;
use super::{e2e, jsonl};
use crate::error::{TrainError, listed};

/// Format of a data file. [`FromStr`] and configuration files use the names in parentheses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataFormat {
    /// Detected from the extension, else from the first line (`auto`); see [`DataFormat::detect`].
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// JSON Lines: one object a line (`jsonl`).
    #[serde(rename = "jsonl")]
    JsonLines,
    /// Comma-separated values with a header row, quoted as in RFC 4180 (`csv`).
    #[serde(rename = "csv")]
    Csv,
    /// Tab-separated values with a header row (`tsv`). Fields are in quotes, as `pandas` writes them, if all double quotes of the
    /// file are where it puts them; otherwise a double quote is a character like any other.
    #[serde(rename = "tsv")]
    Tsv,
    /// `meaning representation||reference`, one pair a line (`e2e`).
    #[serde(rename = "e2e")]
    E2e,
    /// Plain text (`text`). For words with labels, it means the columns of `CoNLL`.
    #[serde(rename = "text")]
    PlainText,
}

impl DataFormat {
    const ALL: [Self; 6] = [
        Self::Auto,
        Self::JsonLines,
        Self::Csv,
        Self::Tsv,
        Self::E2e,
        Self::PlainText,
    ];

    /// Returns the name in configuration files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::E2e => "e2e",
            Self::PlainText => "text",
        }
    }

    /// Detects the format of a file of texts; never [`DataFormat::Auto`].
    ///
    /// The extensions `.jsonl`, `.ndjson` and `.json`, `.csv`, and `.tsv` and `.tab` decide at once.
    /// Otherwise the first line that is not blank does: a JSON object means JSON Lines, text
    /// on both sides of `||` means E2E. Any other file is plain text if the extension is `.txt`,
    /// `.text`, `.raw` or `.tokens`.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if neither decides, and the errors of reading the first line.
    pub fn detect(path: &Path) -> Result<Self, TrainError> {
        if let Some(format) = Self::from_extension(path) {
            return Ok(format);
        }
        let line = first_line(path)?.unwrap_or_default();
        if jsonl::parse_object(&line).is_ok() {
            return Ok(Self::JsonLines);
        }
        if e2e::split(&line).is_some() {
            return Ok(Self::E2e);
        }
        match extension(path).as_str() {
            "txt" | "text" | "raw" | "tokens" => Ok(Self::PlainText),
            _ => Err(undetected(path, &Self::ALL[1..])),
        }
    }

    /// Resolves the format of a table with labels: itself, or detected from the extension, else from the first line
    /// that is not blank, which is an object or has fields between tabs.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if neither decides; [`TrainError::Config`] for a format without labels.
    pub(super) fn resolve_table(self, path: &Path) -> Result<Self, TrainError> {
        match self {
            Self::JsonLines | Self::Csv | Self::Tsv => return Ok(self),
            Self::E2e | Self::PlainText => {
                let message =
                    format!("`{self}` has no labels; labelled data is `jsonl`, `csv` or `tsv`");
                return Err(TrainError::config("format", message));
            }
            Self::Auto => {}
        }
        if let Some(format) = Self::from_extension(path) {
            return Ok(format);
        }
        match first_line(path)? {
            Some(line) if jsonl::parse_object(&line).is_ok() => Ok(Self::JsonLines),
            Some(line) if !line.contains('\t') => {
                Err(undetected(path, &[Self::JsonLines, Self::Csv, Self::Tsv]))
            }
            // An empty file has no record in any format.
            Some(_) | None => Ok(Self::Tsv),
        }
    }

    /// Resolves the format of words with labels: JSON Lines, if this is the format, the extension, or the first line that
    /// is not blank is an object; else [`DataFormat::PlainText`], for the columns of `CoNLL`.
    ///
    /// # Errors
    /// The errors of reading the first line.
    pub(super) fn resolve_words(self, path: &Path) -> Result<Self, TrainError> {
        let is_json = match self {
            Self::JsonLines => true,
            Self::PlainText => false,
            _ if Self::from_extension(path) == Some(Self::JsonLines) => true,
            _ => first_line(path)?.is_some_and(|line| jsonl::parse_object(&line).is_ok()),
        };
        Ok(if is_json {
            Self::JsonLines
        } else {
            Self::PlainText
        })
    }

    /// Returns the format that the extension of `path` decides.
    fn from_extension(path: &Path) -> Option<Self> {
        match extension(path).as_str() {
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            _ => None,
        }
    }
}

/// Creates the error that the format of a file is not detected.
fn undetected(path: &Path, formats: &[DataFormat]) -> TrainError {
    let names = names(formats);
    let message = format!(
        "neither the extension nor the first line shows the format; give it as one of {names}"
    );
    TrainError::data_format(path, message)
}

/// Returns the file's extension in lower case, empty if there is none.
fn extension(path: &Path) -> String {
    let extension = path.extension().unwrap_or_default();
    extension.to_string_lossy().to_ascii_lowercase()
}

impl fmt::Display for DataFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DataFormat {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self, TrainError> {
        let mut formats = Self::ALL.into_iter();
        formats.find(|format| format.name() == name).ok_or_else(|| {
            let names = names(&Self::ALL);
            let message = format!("`{name}` is not a data format; the formats are {names}");
            TrainError::config("format", message)
        })
    }
}

fn names(formats: &[DataFormat]) -> String {
    let names: Vec<String> = formats.iter().map(ToString::to_string).collect();
    listed(&names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(name: &str, text: &str) -> Result<DataFormat, TrainError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        DataFormat::detect(&path)
    }

    #[test]
    fn the_extension_decides_before_the_first_line() {
        for (name, format) in [
            ("a.jsonl", DataFormat::JsonLines),
            ("a.ndjson", DataFormat::JsonLines),
            ("a.json", DataFormat::JsonLines),
            ("a.CSV", DataFormat::Csv),
            ("a.tsv", DataFormat::Tsv),
            ("a.tab", DataFormat::Tsv),
        ] {
            assert_eq!(detect(name, "a||b\n").unwrap(), format, "{name}");
        }
    }

    #[test]
    fn the_first_line_that_is_not_blank_decides_otherwise() {
        for (text, format) in [
            ("\n{\"text\": \"a\"}\n", DataFormat::JsonLines),
            ("name : A || A .\n", DataFormat::E2e),
            ("{ not json\n", DataFormat::PlainText),
            ("|| a table ||\n", DataFormat::PlainText),
            ("", DataFormat::PlainText),
        ] {
            assert_eq!(detect("a.txt", text).unwrap(), format, "{text}");
        }
        assert_eq!(detect("train", "a||b").unwrap(), DataFormat::E2e);
    }

    #[test]
    fn an_unknown_extension_with_an_unknown_first_line_asks_for_the_format() {
        let message = detect("a.dat", "hello\n").unwrap_err().to_string();
        assert!(message.contains("`jsonl`, `csv`"), "{message}");
        assert!(!message.contains("`auto`"), "{message}");
    }

    #[test]
    fn names_are_the_same_on_the_command_line_and_in_configuration_files() {
        for format in DataFormat::ALL {
            assert_eq!(format.name().parse::<DataFormat>().unwrap(), format);
            let json = serde_json::to_value(format).unwrap();
            assert_eq!(json, format.name());
        }
        let message = "xml".parse::<DataFormat>().unwrap_err().to_string();
        assert!(message.contains("`auto`, `jsonl`"), "{message}");
    }
}
