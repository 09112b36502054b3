//! Reading texts, prompts and completions: one function for every format.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::columns::Columns;
use super::e2e::{self, E2eTemplate};
use super::format::DataFormat;
use super::plain_text::{self, TextDocuments};
use super::record::Record;
use super::text_table;
use crate::error::TrainError;

/// Options for reading a file of texts, or of prompts and completions. The default detects the format and reads columns
/// with their usual names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceOptions {
    /// Format of the file.
    pub format: DataFormat,
    /// Columns or keys to read, for CSV, TSV and JSON Lines.
    pub columns: Columns,
    /// Template of prompts and completions, for E2E.
    pub e2e: E2eTemplate,
    /// Division into documents, for plain text.
    pub documents: TextDocuments,
}

/// Reads every record of the file at `path`, in the file's order.
///
/// The reader expects hostile input: lines, and rows over several lines, are bounded by
/// [`MAX_LINE_BYTES`](super::MAX_LINE_BYTES), and every record must be well-formed.
///
/// # Errors
/// - [`TrainError::Io`] if the file cannot be read;
/// - [`TrainError::DataLine`] for the first line that is malformed, too long or not UTF-8;
/// - [`TrainError::Column`] if a table lacks a column, [`TrainError::DataFormat`] if the columns
///   are ambiguous or the format is not detected;
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
        DataFormat::JsonLines | DataFormat::Csv | DataFormat::Tsv => {
            text_table::read(path, format, &options.columns)?
        }
        DataFormat::E2e => e2e::read(path, &options.e2e)?,
        DataFormat::Auto | DataFormat::PlainText => plain_text::read(path, options.documents)?,
    };
    if records.is_empty() {
        let message = format!("read as `{format}`, it has no record");
        return Err(TrainError::data_empty(path, message));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

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
                ..Columns::default()
            },
            ..SourceOptions::default()
        };
        let error = read_records(&folder.path().join("a.tsv"), &options).unwrap_err();
        assert!(matches!(error, TrainError::Config { .. }), "{error}");
    }
}
