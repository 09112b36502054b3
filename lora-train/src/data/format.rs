//! Formats of data files, and how a file's format is detected.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::lines::{beginning, begins_with, first_line};
use super::parquet::is_parquet;
use super::template::PairTemplate;
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
    /// E2E NLG Challenge: `meaning representation||reference`, one pair a line, or the challenge's CSV (`e2e`).
    #[serde(rename = "e2e")]
    E2e,
    /// DART: a JSON array of sets of triples with texts (`dart`).
    #[serde(rename = "dart")]
    Dart,
    /// `WebNLG` 2017: a JSON object of sets of triples with texts (`webnlg`).
    #[serde(rename = "webnlg")]
    WebNlg,
    /// `WikiSQL`: questions with their queries, beside a file of tables (`wikisql`).
    #[serde(rename = "wikisql")]
    WikiSql,
    /// `SAMSum`: dialogues with their summaries (`samsum`).
    #[serde(rename = "samsum")]
    SamSum,
    /// MNLI of GLUE, put to a language model (`mnli`); never detected.
    #[serde(rename = "mnli")]
    Mnli,
    /// Conversations: `messages`, each with `role` and `content`, and `tools` (`messages`).
    #[serde(rename = "messages")]
    Messages,
    /// Conversations of ShareGPT: `conversations`, each with `from` and `value` (`sharegpt`).
    #[serde(rename = "sharegpt")]
    ShareGpt,
    /// Alpaca: `instruction`, `input` and `output`, as a conversation of one turn (`alpaca`).
    #[serde(rename = "alpaca")]
    Alpaca,
    /// Plain text (`text`). For words with labels, it means the columns of `CoNLL`.
    #[serde(rename = "text")]
    PlainText,
}

impl DataFormat {
    const ALL: [Self; 14] = [
        Self::Auto,
        Self::JsonLines,
        Self::Csv,
        Self::Tsv,
        Self::E2e,
        Self::Dart,
        Self::WebNlg,
        Self::WikiSql,
        Self::SamSum,
        Self::Mnli,
        Self::Messages,
        Self::ShareGpt,
        Self::Alpaca,
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
            Self::Dart => "dart",
            Self::WebNlg => "webnlg",
            Self::WikiSql => "wikisql",
            Self::SamSum => "samsum",
            Self::Mnli => "mnli",
            Self::Messages => "messages",
            Self::ShareGpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::PlainText => "text",
        }
    }

    /// Returns true for conversations, whose text is made by the model's chat template.
    pub fn is_chat(self) -> bool {
        matches!(self, Self::Messages | Self::ShareGpt | Self::Alpaca)
    }

    /// Returns the template that makes an input and a reference of this format a prompt and a completion.
    ///
    /// | format | prompt and completion |
    /// | --- | --- |
    /// | `e2e`, `dart`, `webnlg` | `{input} \|\|` and ` {reference}` |
    /// | `samsum` | `{dialogue}`, an empty line, and `{summary}` |
    /// | all others | `{prompt}` and ` {completion}` |
    pub fn template(self) -> PairTemplate {
        match self {
            Self::E2e | Self::Dart | Self::WebNlg => PairTemplate::new(" ||", " "),
            Self::SamSum => PairTemplate::new("\n\n", ""),
            _ => PairTemplate::new("", " "),
        }
    }

    /// Detects the format of a file of texts; never [`DataFormat::Auto`].
    ///
    /// The extensions `.csv`, and `.tsv` and `.tab` decide at once, but for the CSV of the E2E challenge, whose header is
    /// `mr,ref`. Otherwise the first line that is not blank does: text on both sides of `||` means E2E. Any other file is
    /// plain text if the extension is `.txt`, `.text`, `.raw` or `.tokens`. A JSON file (`.jsonl`, `.ndjson`, `.json`, or an
    /// object in the first line) is JSON Lines, unless it begins with the keys of a published data set.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if neither decides, and the errors of reading the beginning.
    pub fn detect(path: &Path) -> Result<Self, TrainError> {
        Self::detect_for(path, false)
    }

    /// Detects the format as [`detect`](Self::detect). With named columns of texts, a JSON file has no conversations.
    pub(super) fn detect_for(path: &Path, is_named: bool) -> Result<Self, TrainError> {
        let format = Self::from_extension(path);
        if format == Some(Self::Tsv) {
            return Ok(Self::Tsv);
        }
        let line = match first_text(path) {
            // A document may be a single line, longer than lines of records may be; its beginning tells the data set.
            Err(_) if begins_with(path, &['[', '{'])? => beginning(path)?,
            line => line?.unwrap_or_default(),
        };
        if format == Some(Self::Csv) {
            let of_challenge = e2e::is_header(&line);
            return Ok(if of_challenge { Self::E2e } else { Self::Csv });
        }
        if format == Some(Self::JsonLines) || jsonl::parse_object(&line).is_ok() {
            let known = Self::of_json(path, &line, is_named)?;
            return Ok(known.unwrap_or(Self::JsonLines));
        }
        if e2e::split(&line).is_some() {
            return Ok(Self::E2e);
        }
        match extension(path).as_str() {
            "txt" | "text" | "raw" | "tokens" => Ok(Self::PlainText),
            _ => Err(undetected(path, &Self::ALL[1..])),
        }
    }

    /// Finds the published data set, or the form of conversations, of which a JSON file is, by the keys of its first object.
    fn of_json(path: &Path, first: &str, is_named: bool) -> Result<Option<Self>, TrainError> {
        use Shape::{Array, Lines, Object};
        const KEYS: [(&[&str], &[Shape], DataFormat); 7] = [
            (&["entries"], &[Lines, Object], DataFormat::WebNlg),
            (&["tripleset"], &[Array], DataFormat::Dart),
            (
                &["question", "table_id", "sql"],
                &[Lines],
                DataFormat::WikiSql,
            ),
            (
                &["dialogue", "summary"],
                &[Lines, Array],
                DataFormat::SamSum,
            ),
            (&["messages"], &[Lines, Array], DataFormat::Messages),
            (&["conversations"], &[Lines, Array], DataFormat::ShareGpt),
            (
                &["instruction", "output"],
                &[Lines, Array],
                DataFormat::Alpaca,
            ),
        ];
        let object = jsonl::parse_object(first).ok();
        // The first object of a document may go over many lines.
        let start = match object {
            Some(_) => String::new(),
            None => beginning(path)?,
        };
        let shape = match (&object, start.trim_start().starts_with('[')) {
            (Some(_), _) => Lines,
            (None, true) => Array,
            (None, false) => Object,
        };
        let has = |key: &str| match &object {
            Some(object) => object.contains_key(key),
            None => start.contains(&format!("\"{key}\"")),
        };
        let mut keys = KEYS.iter();
        let found = keys
            .find(|(keys, shapes, _)| shapes.contains(&shape) && keys.iter().all(|key| has(key)));
        let format = found.map(|(_, _, format)| *format);
        let format = format.filter(|format| !is_named || !format.is_chat());
        let is_text = has("text") || (has("prompt") && has("completion"));
        if shape == Lines && is_text && format.is_some_and(Self::is_chat) {
            let message = "the objects have a conversation as well as `text`, or `prompt` and `completion`; say which to read by \
                           the format (`jsonl`, or that of the conversation) or by the names of the keys";
            return Err(TrainError::data_format(path, message));
        }
        Ok(format)
    }

    /// Resolves the format of a table with labels: itself, or detected from the extension, else from the first line
    /// that is not blank, which is an object or has fields between tabs.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if neither decides; [`TrainError::Config`] for a format without labels.
    pub(super) fn resolve_table(self, path: &Path) -> Result<Self, TrainError> {
        match self {
            Self::JsonLines | Self::Csv | Self::Tsv => return Ok(self),
            Self::Auto => {}
            Self::Mnli => {
                let message = "`mnli` puts MNLI to a language model; a classifier reads it by the task glue/mnli";
                return Err(TrainError::config("format", message));
            }
            _ => {
                let message =
                    format!("`{self}` has no labels; labelled data is `jsonl`, `csv` or `tsv`");
                return Err(TrainError::config("format", message));
            }
        }
        if let Some(format) = Self::from_extension(path) {
            return Ok(format);
        }
        match first_text(path)? {
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
            _ => first_text(path)?.is_some_and(|line| jsonl::parse_object(&line).is_ok()),
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
            "jsonl" | "ndjson" | "json" | "parquet" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            _ => None,
        }
    }
}

/// Reads the first line that is not blank, or the first row of a Parquet file as a line of JSON; `None` if there is none.
pub(crate) fn first_text(path: &Path) -> Result<Option<String>, TrainError> {
    if !is_parquet(path)? {
        return first_line(path);
    }
    let row = jsonl::Objects::open(path)?.next_object()?;
    Ok(row.map(|(object, _)| serde_json::Value::Object(object).to_string()))
}

/// Shape of a JSON file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// An object a line.
    Lines,
    /// One array of objects.
    Array,
    /// One object.
    Object,
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
    fn published_data_sets_are_known_by_their_keys() {
        for (name, text, format) in [
            ("dev.json", "[\n {\n \"tripleset\": [", DataFormat::Dart),
            ("dev.json", "{\n \"entries\": [", DataFormat::WebNlg),
            ("dev.json", "{\"entries\": []}", DataFormat::WebNlg),
            (
                "a.json",
                "[\n{\"id\": \"1\", \"summary\": \"\", \"dialogue\"",
                DataFormat::SamSum,
            ),
            (
                "a.jsonl",
                "{\"dialogue\": \"a\", \"summary\": \"b\"}\n",
                DataFormat::SamSum,
            ),
            (
                "a.jsonl",
                "{\"question\": \"a\", \"table_id\": \"b\", \"sql\": {}}\n",
                DataFormat::WikiSql,
            ),
            (
                "a.jsonl",
                "{\"id\": 1, \"messages\": [{\"role\": \"user\"}]}\n",
                DataFormat::Messages,
            ),
            (
                "a.json",
                "[\n{\"id\": 1, \"conversations\": [",
                DataFormat::ShareGpt,
            ),
            (
                "alpaca_data.json",
                "[\n  {\n \"instruction\": \"a\",\n \"input\": \"\", \"output\": \"b\"",
                DataFormat::Alpaca,
            ),
            (
                "a.jsonl",
                "{\"output\": \"a\", \"instruction\": \"b\"}\n",
                DataFormat::Alpaca,
            ),
            ("a.json", "[\n{\"text\": \"a\"}]", DataFormat::JsonLines),
            ("trainset.csv", "mr,ref\r\n", DataFormat::E2e),
        ] {
            assert_eq!(detect(name, text).unwrap(), format, "{text}");
        }
    }

    #[test]
    fn a_conversation_beside_a_text_asks_which_to_read() {
        let line = "{\"messages\": [], \"text\": \"a\"}\n";
        let message = detect("a.jsonl", line).unwrap_err().to_string();
        assert!(
            message.contains("a conversation as well as `text`"),
            "{message}"
        );
    }

    /// `datasets` and `json.dump` write a whole data set in one line.
    #[test]
    fn a_document_in_one_long_line_is_known_by_its_beginning() {
        let filler = "x".repeat(crate::data::lines::MAX_LINE_BYTES);
        for (start, format) in [
            (
                "[{\"id\": \"1\", \"summary\": \"a\", \"dialogue\": \"",
                DataFormat::SamSum,
            ),
            (
                "\u{feff}[{\"tripleset\": [], \"text\": \"",
                DataFormat::Dart,
            ),
            ("{\"entries\": [{\"1\": \"", DataFormat::WebNlg),
        ] {
            let text = format!("{start}{filler}\"}}]");
            assert_eq!(detect("a.json", &text).unwrap(), format, "{start}");
        }
        // Other long lines are refused as before.
        assert!(detect("a.json", &(filler + "x")).is_err());
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
