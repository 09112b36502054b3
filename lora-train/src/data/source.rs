//! Reading a data file: which format it has, and its records.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::columns::Columns;
use super::delimited;
use super::e2e::{self, E2eTemplate};
use super::jsonl;
use super::lines::{Lines, is_blank};
use super::plain_text::{self, TextDocuments};
use super::record::Record;
use super::rows::Dialect;
use crate::error::TrainError;

/// The formats that can be read. The names in parentheses are those of [`FromStr`] and of
/// configuration files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataFormat {
    /// Told by the extension, else by the first line (`auto`); see [`DataFormat::detect`].
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// One JSON object a line, with `text`, or with `prompt` and `completion` (`jsonl`).
    #[serde(rename = "jsonl")]
    JsonLines,
    /// Comma-separated values with a header row, quoted as in RFC 4180 (`csv`).
    #[serde(rename = "csv")]
    Csv,
    /// Tab-separated values with a header row, without quoting (`tsv`).
    #[serde(rename = "tsv")]
    Tsv,
    /// `meaning representation||reference`, one pair a line (`e2e`).
    #[serde(rename = "e2e")]
    E2e,
    /// Plain text (`text`).
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

    /// The format's name in configuration files and on the command line.
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

    /// The format of the file at `path`, never [`DataFormat::Auto`].
    ///
    /// The extensions `.jsonl`, `.ndjson` and `.json`, `.csv`, and `.tsv` and `.tab` decide at once.
    /// Otherwise the first line that is not blank does: a JSON object means JSON Lines, something
    /// on both sides of `||` means E2E. What is left is plain text if the extension is `.txt`,
    /// `.text`, `.raw` or `.tokens`.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if neither tells; whatever reading the first line can raise.
    pub fn detect(path: &Path) -> Result<Self, TrainError> {
        if let Some(format) = Self::from_extension(path) {
            return Ok(format);
        }
        let mut lines = Lines::open(path)?;
        while let Some((line, _)) = lines.next_line()? {
            if is_blank(line) {
                continue;
            }
            if jsonl::parse_object(line).is_ok() {
                return Ok(Self::JsonLines);
            }
            if e2e::split(line).is_some() {
                return Ok(Self::E2e);
            }
            break;
        }
        match extension(path).as_str() {
            "txt" | "text" | "raw" | "tokens" => Ok(Self::PlainText),
            _ => Err(TrainError::data_format(
                path,
                format!(
                    "neither the extension nor the first line tells the format; give it as one of {}",
                    names(&Self::ALL[1..])
                ),
            )),
        }
    }

    /// The format that the extension of `path` decides.
    pub(super) fn from_extension(path: &Path) -> Option<Self> {
        match extension(path).as_str() {
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            _ => None,
        }
    }
}

/// The file's extension in lower case, empty if there is none.
fn extension(path: &Path) -> String {
    path.extension()
        .map(|extension| extension.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default()
}

impl fmt::Display for DataFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DataFormat {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self, TrainError> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| {
                TrainError::config(
                    "format",
                    format!(
                        "`{name}` is no data format; the formats are {}",
                        names(&Self::ALL)
                    ),
                )
            })
    }
}

fn names(formats: &[DataFormat]) -> String {
    let names: Vec<String> = formats.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// How to read a data file. The default tells the format by itself and reads what the columns are
/// usually called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceOptions {
    /// The format.
    pub format: DataFormat,
    /// CSV, TSV and JSON Lines: the columns or keys to read.
    pub columns: Columns,
    /// E2E: how a pair becomes a prompt and a completion.
    pub e2e: E2eTemplate,
    /// Plain text: what is one document.
    pub documents: TextDocuments,
}

/// Reads every record of the file at `path`, in the file's order.
///
/// The file is read as hostile input: lines, and rows over several lines, are bounded by
/// [`MAX_LINE_BYTES`](super::MAX_LINE_BYTES), and every record must be well-formed.
///
/// # Errors
/// - [`TrainError::Io`] if the file cannot be read;
/// - [`TrainError::DataLine`] for the first line that is malformed, too long or not UTF-8;
/// - [`TrainError::Column`] if a table lacks a column, [`TrainError::DataFormat`] if the columns
///   are ambiguous or the format cannot be told;
/// - [`TrainError::DataEmpty`] if there is no record;
/// - [`TrainError::Config`] if the options contradict each other.
///
/// # Examples
/// ```
/// use lora_train::data::{Content, SourceOptions, read_records};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("train.jsonl");
/// std::fs::write(&path, "{\"prompt\": \"2 + 2 =\", \"completion\": \" 4\"}\n")?;
///
/// let records = read_records(&path, &SourceOptions::default())?;
/// assert_eq!(
///     records[0].content,
///     Content::PromptCompletion { prompt: "2 + 2 =".into(), completion: " 4".into() }
/// );
/// assert_eq!(records[0].origin.line(), 1);
/// # Ok(())
/// # }
/// ```
pub fn read_records(path: &Path, options: &SourceOptions) -> Result<Vec<Record>, TrainError> {
    options.columns.validate()?;
    let format = match options.format {
        DataFormat::Auto => DataFormat::detect(path)?,
        format => format,
    };
    let records = match format {
        DataFormat::JsonLines => jsonl::read(path, &options.columns)?,
        DataFormat::Csv => delimited::read(path, &options.columns, Dialect::Csv)?,
        DataFormat::Tsv => delimited::read(path, &options.columns, Dialect::Tsv)?,
        DataFormat::E2e => e2e::read(path, &options.e2e)?,
        DataFormat::Auto | DataFormat::PlainText => plain_text::read(path, options.documents)?,
    };
    if records.is_empty() {
        return Err(TrainError::data_empty(
            path,
            format!("read as `{format}`, it has no record"),
        ));
    }
    Ok(records)
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

    #[test]
    fn options_come_from_a_configuration_file_and_unknown_keys_are_refused() {
        let options: SourceOptions = serde_json::from_str(
            r#"{"format": "csv", "columns": {"text": "body"}, "documents": "line"}"#,
        )
        .unwrap();
        assert_eq!(options.format, DataFormat::Csv);
        assert_eq!(options.columns, Columns::text("body"));
        assert_eq!(options.e2e, E2eTemplate::default());
        assert_eq!(options.documents, TextDocuments::Line);
        assert!(serde_json::from_str::<SourceOptions>(r#"{"colums": {}}"#).is_err());
    }

    #[test]
    fn a_file_without_records_and_contradicting_options_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "a.tsv", "a.txt"] {
            let path = folder.path().join(name);
            let text = if name == "a.tsv" { "text\n" } else { "\n\n" };
            std::fs::write(&path, text).unwrap();
            let error = read_records(&path, &SourceOptions::default()).unwrap_err();
            assert!(matches!(error, TrainError::DataEmpty { .. }), "{error}");
        }
        let options = SourceOptions {
            columns: Columns {
                text: Some("a".into()),
                prompt: Some("b".into()),
                completion: None,
            },
            ..SourceOptions::default()
        };
        let error = read_records(&folder.path().join("a.tsv"), &options).unwrap_err();
        assert!(matches!(error, TrainError::Config { .. }), "{error}");
    }
}
