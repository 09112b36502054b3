//! Reading texts, prompts and completions: one function for every format.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::columns::Columns;
use super::format::DataFormat;
use super::plain_text::{self, TextDocuments};
use super::record::{Content, Each, Record, collect};
use super::template::PairTemplate;
use super::webnlg::Categories;
use super::{chat, dart, e2e, mnli, samsum, text_table, webnlg, wikisql};
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
    /// Template of prompts and completions. Without one it is [`DataFormat::template`], and those of CSV, TSV and JSON Lines
    /// are as they are in the file.
    pub template: Option<PairTemplate>,
    /// Categories to read, for `WebNLG`.
    pub categories: Categories,
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
    collect(|record| each_record(path, options, record))
}

/// Calls a function with each record of the file, as [`read_records`] returns them. Of lines, rows and objects, no more than one is in
/// memory; JSON documents and the published data sets are read as a whole.
///
/// # Errors
/// As [`read_records`]; those of the function.
pub(crate) fn each_record(
    path: &Path,
    options: &SourceOptions,
    each: Each<'_>,
) -> Result<(), TrainError> {
    options.columns.validate()?;
    let format = options.format_of(path)?;
    if options.categories != Categories::All && format != DataFormat::WebNlg {
        let message = format!("are those of `webnlg`; {} is `{format}`", path.display());
        return Err(TrainError::config("categories", message));
    }
    let template = options.template.clone();
    let template = template.unwrap_or_else(|| format.template());
    let mut is_empty = true;
    let mut take = |record| {
        is_empty = false;
        each(record)
    };
    match format {
        DataFormat::JsonLines | DataFormat::Csv | DataFormat::Tsv => {
            text_table::each(
                path,
                format,
                &options.columns,
                &mut |record| match &options.template {
                    Some(template) => take(with_template(record, template)?),
                    None => take(record),
                },
            )?;
        }
        DataFormat::E2e => e2e::each(path, &template, &mut take)?,
        DataFormat::Dart => dart::read(path, &template)?
            .into_iter()
            .try_for_each(take)?,
        DataFormat::WebNlg => {
            let records = webnlg::read(path, &template, options.categories)?;
            records.into_iter().try_for_each(take)?;
        }
        DataFormat::WikiSql => {
            let records = wikisql::read(path, &template)?;
            records.into_iter().try_for_each(take)?;
        }
        DataFormat::SamSum => {
            let records = samsum::read(path, &template)?;
            records.into_iter().try_for_each(take)?;
        }
        DataFormat::Mnli => {
            let records = mnli::read(path, &template, options.columns.adapter.as_deref())?;
            records.into_iter().try_for_each(take)?;
        }
        DataFormat::Messages | DataFormat::ShareGpt | DataFormat::Alpaca
            if options.template.is_some() =>
        {
            let message =
                "is for prompts and completions, and a conversation has the template of the model";
            return Err(TrainError::config("template", message));
        }
        DataFormat::Messages | DataFormat::ShareGpt | DataFormat::Alpaca => {
            chat::each(path, format, options.columns.adapter.as_deref(), &mut take)?;
        }
        DataFormat::Auto | DataFormat::PlainText if options.template.is_some() => {
            let message = "is for prompts and completions, and plain text has neither";
            return Err(TrainError::config("template", message));
        }
        DataFormat::Auto | DataFormat::PlainText => {
            plain_text::each(path, options.documents, &mut take)?;
        }
    }
    if is_empty {
        let message = format!("read as `{format}`, it has no record");
        return Err(TrainError::data_empty(path, message));
    }
    Ok(())
}

impl DataFormat {
    /// Returns true if the records of a file are read one by one, and not the file as a whole.
    pub(crate) fn is_streamed(self) -> bool {
        matches!(
            self,
            Self::JsonLines
                | Self::Csv
                | Self::Tsv
                | Self::E2e
                | Self::Messages
                | Self::ShareGpt
                | Self::Alpaca
                | Self::PlainText
        )
    }
}

impl SourceOptions {
    /// Returns the format of a file, detected if it is not said. With named columns it is a table, whatever its keys.
    pub(crate) fn format_of(&self, path: &Path) -> Result<DataFormat, TrainError> {
        let columns = &self.columns;
        let named =
            columns.text.is_some() || columns.prompt.is_some() || columns.completion.is_some();
        match self.format {
            DataFormat::Auto => Ok(match DataFormat::detect_for(path, named)? {
                DataFormat::WikiSql | DataFormat::SamSum if named => DataFormat::JsonLines,
                DataFormat::E2e if named && path.extension().is_some_and(|end| end == "csv") => {
                    DataFormat::Csv
                }
                format => format,
            }),
            format => Ok(format),
        }
    }
}

/// Puts prompt and completion of a record of a table into a template.
fn with_template(record: Record, template: &PairTemplate) -> Result<Record, TrainError> {
    let Content::PromptCompletion { prompt, completion } = &record.content else {
        let message =
            "a text without a prompt has no place in a template; give `prompt` and `completion`";
        return Err(record.origin.error(message));
    };
    let made = template.record(prompt, completion, record.origin.clone());
    Ok(made.with_adapter(record.adapter))
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
        assert_eq!(options.template, None);
        assert_eq!(options.documents, TextDocuments::Line);
        assert!(serde_json::from_str::<SourceOptions>(r#"{"colums": {}}"#).is_err());
    }

    #[test]
    fn a_template_makes_prompts_and_completions_of_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let options = SourceOptions {
            columns: Columns::prompt_completion("context", "completion"),
            template: Some(PairTemplate::microsoft_lora()),
            ..SourceOptions::default()
        };
        std::fs::write(&path, "{\"context\": \"a : b\", \"completion\": \" c\"}").unwrap();
        let records = read_records(&path, &options).unwrap();
        let expected = Content::PromptCompletion {
            prompt: "a : b<|endoftext|>".into(),
            completion: " c".into(),
        };
        assert_eq!(records[0].content, expected);
        let text = SourceOptions {
            columns: Columns::text("context"),
            ..options.clone()
        };
        let message = read_records(&path, &text).unwrap_err().to_string();
        assert!(
            message.contains("line 1: a text without a prompt"),
            "{message}"
        );
        let seen = SourceOptions {
            categories: Categories::Seen,
            ..options
        };
        let message = read_records(&path, &seen).unwrap_err().to_string();
        assert!(
            message.contains("`categories`: are those of `webnlg`"),
            "{message}"
        );
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
