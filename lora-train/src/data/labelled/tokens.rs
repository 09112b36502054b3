//! Reading sentences with a label for each word, for token classification.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::classes::{Classes, raw_label};
use super::conll::{Sentence, Sentences};
use super::label_set::LabelSet;
use super::record::{ReadReport, TokenRecord, Unlabelled};
use crate::data::jsonl::{self, Object, Objects};
use crate::data::lines::{Lines, is_blank};
use crate::data::{DataFormat, Origin};
use crate::error::{TrainError, listed};

/// The formats of labelled words. The names in parentheses are those of [`FromStr`] and of
/// configuration files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenFormat {
    /// JSON Lines by extension (`.jsonl`, `.ndjson`, `.json`) or if the first line that is not
    /// blank is an object, else CoNLL (`auto`).
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// An object a line, with a list of words and a list of as many labels (`jsonl`).
    #[serde(rename = "jsonl")]
    JsonLines,
    /// A word a line, first the word and last its label, with blank lines between sentences
    /// (`conll`).
    #[serde(rename = "conll")]
    Conll,
}

impl TokenFormat {
    const ALL: [Self; 3] = [Self::Auto, Self::JsonLines, Self::Conll];

    /// The format's name in configuration files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::JsonLines => "jsonl",
            Self::Conll => "conll",
        }
    }

    /// This format, told by the file at `path` if it is to be.
    fn settle(self, path: &Path) -> Result<Self, TrainError> {
        if self != Self::Auto {
            return Ok(self);
        }
        if DataFormat::from_extension(path) == Some(DataFormat::JsonLines) {
            return Ok(Self::JsonLines);
        }
        let mut lines = Lines::open(path)?;
        while let Some((line, _)) = lines.next_line()? {
            if !is_blank(line) && jsonl::parse_object(line).is_ok() {
                return Ok(Self::JsonLines);
            }
            if !is_blank(line) {
                break;
            }
        }
        Ok(Self::Conll)
    }
}

impl fmt::Display for TokenFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TokenFormat {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self, TrainError> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| {
                let names: Vec<String> = Self::ALL.map(|format| format.to_string()).into();
                TrainError::config(
                    "format",
                    format!(
                        "`{name}` is no format of labelled words; the formats are {}",
                        listed(&names)
                    ),
                )
            })
    }
}

/// JSON Lines: the keys to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenKeys {
    /// The key of the words; `tokens` if none is named.
    pub words: Option<String>,
    /// The key of the labels; if none is named, the one of `ner_tags`, `labels` and `tags` that is
    /// there.
    pub labels: Option<String>,
}

const WORDS: &str = "tokens";
const LABELS: [&str; 3] = ["ner_tags", "labels", "tags"];

/// How to read a file of labelled words. The default tells the format by itself, gathers the
/// labels from the file, and wants every sentence labelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSource<'a> {
    /// The file's format.
    pub format: TokenFormat,
    /// JSON Lines: the keys to read.
    pub keys: TokenKeys,
    /// The labels: to evaluate or predict, those of the model. Without, they are those that the
    /// file has.
    pub labels: Option<&'a LabelSet>,
    /// What becomes of sentences without labels.
    pub unlabelled: Unlabelled,
}

/// The sentences of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenData {
    /// The sentences, in the order of the file.
    pub records: Vec<TokenRecord>,
    /// The labels; `None` if the file has none and none were given.
    pub labels: Option<LabelSet>,
    /// What was read.
    pub report: ReadReport,
}

/// Reads every sentence of the file at `path`, in the file's order.
///
/// Labels are names or indices, as in [`read_labelled`](super::read_labelled); those gathered from
/// the file are sorted, as in `run_ner.py` of transformers. Lines of CoNLL that begin with
/// `-DOCSTART-` are left out.
///
/// # Errors
/// - [`TrainError::Io`] if the file cannot be read;
/// - [`TrainError::DataLine`] for the first line that is malformed, a sentence without words or
///   without labels, as many labels as words, or with an unknown label;
/// - [`TrainError::DataEmpty`] if there is no sentence, [`TrainError::DataFormat`] if there is only
///   one label to gather.
///
/// # Examples
/// ```
/// use lora_train::data::{TokenSource, read_tokens};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("train.conll");
/// std::fs::write(&path, "Ada B-PER\nwrote O\n\nIn O\nParis B-LOC\n")?;
///
/// let data = read_tokens(&path, &TokenSource::default())?;
/// assert_eq!(data.labels.unwrap().names(), ["B-LOC", "B-PER", "O"]);
/// assert_eq!(data.records[1].words, ["In", "Paris"]);
/// assert_eq!(data.records[1].labels, Some(vec![2, 0]));
/// # Ok(())
/// # }
/// ```
pub fn read_tokens(path: &Path, source: &TokenSource) -> Result<TokenData, TrainError> {
    if source.keys.words.is_some() && source.keys.words == source.keys.labels {
        return Err(TrainError::config(
            "columns",
            "the words and the labels are to be read from the same key; name two",
        ));
    }
    let mut classes = Classes::of(source.labels);
    let mut records = Vec::new();
    let mut add = |sentence: Sentence, origin: Origin| -> Result<(), TrainError> {
        let line = origin.line();
        let record = sentence
            .record(origin, &mut classes, source.unlabelled)
            .map_err(|message| TrainError::data_line(path, line, message))?;
        records.push(record);
        Ok(())
    };
    match source.format.settle(path)? {
        TokenFormat::JsonLines => {
            let mut objects = Objects::open(path)?;
            while let Some((object, origin)) = objects.next_object()? {
                let sentence = Sentence::of(object, &source.keys)
                    .map_err(|message| TrainError::data_line(path, origin.line(), message))?;
                add(sentence, origin)?;
            }
        }
        TokenFormat::Auto | TokenFormat::Conll => {
            let mut sentences = Sentences::open(path)?;
            while let Some((sentence, origin)) = sentences.next_sentence()? {
                add(sentence, origin)?;
            }
        }
    }
    if records.is_empty() {
        return Err(TrainError::data_empty(path, "it has no sentence"));
    }

    let settled = classes.settle(path)?;
    let labels = records
        .iter_mut()
        .filter_map(|record| record.labels.as_mut());
    for class in labels.flatten() {
        *class = settled.class(*class);
    }
    let unlabelled = records.iter().filter(|record| record.labels.is_none());
    let report = ReadReport {
        records: records.len(),
        unlabelled: unlabelled.count(),
        ..ReadReport::default()
    };
    Ok(TokenData {
        records,
        labels: settled.labels,
        report,
    })
}

impl Sentence {
    /// The sentence that an object is, or what is wrong with it.
    fn of(mut object: Object, keys: &TokenKeys) -> Result<Self, String> {
        let words_key = keys.words.as_deref().unwrap_or(WORDS);
        let labels_key = match &keys.labels {
            Some(key) => Some(key.as_str()),
            None => {
                let mut there = LABELS
                    .into_iter()
                    .filter(|key| object.contains_key(*key) && *key != words_key);
                match (there.next(), there.next()) {
                    (Some(one), Some(other)) => {
                        return Err(format!(
                            "the object has \"{one}\" as well as \"{other}\"; name the key of the \
                             labels"
                        ));
                    }
                    (first, _) => first,
                }
            }
        };
        let words = list(object.remove(words_key), words_key)?
            .ok_or_else(|| format!("the object has no key \"{words_key}\""))?
            .into_iter()
            .enumerate()
            .map(|(at, word)| match word {
                Value::String(word) => Ok(word),
                other => Err(format!(
                    "word {at} of \"{words_key}\", counted from 0, is {}, expected a string",
                    jsonl::kind(&other)
                )),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let labels = match labels_key {
            Some(key) => list(object.remove(key), key)?,
            None => None,
        };
        let Some(labels) = labels else {
            return Ok(Self {
                words,
                labels: Vec::new(),
            });
        };
        if labels.len() != words.len() {
            return Err(format!(
                "{} labels for {} words; each word has one",
                labels.len(),
                words.len()
            ));
        }
        let labels = labels
            .into_iter()
            .enumerate()
            .map(|(at, label)| {
                raw_label(Some(label))?
                    .ok_or_else(|| format!("word {at}, counted from 0, has no label"))
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { words, labels })
    }

    fn record(
        self,
        origin: Origin,
        classes: &mut Classes,
        unlabelled: Unlabelled,
    ) -> Result<TokenRecord, String> {
        if self.words.is_empty() {
            return Err("a sentence without words; remove it".to_string());
        }
        if let Some(at) = self.words.iter().position(|word| is_blank(word)) {
            return Err(format!("word {at}, counted from 0, is blank; remove it"));
        }
        if self.labels.is_empty() && unlabelled == Unlabelled::Refuse {
            return Err(
                "no labels; to train and to evaluate, every sentence needs them".to_string(),
            );
        }
        let labels = self
            .labels
            .iter()
            .enumerate()
            .map(|(at, label)| {
                classes
                    .class(label)
                    .map_err(|message| format!("word {at}, counted from 0: {message}"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(TokenRecord {
            words: self.words,
            labels: (!labels.is_empty()).then_some(labels),
            origin,
        })
    }
}

/// The list under a key; `None` if the key is missing or null.
fn list(value: Option<Value>, key: &str) -> Result<Option<Vec<Value>>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(values)) => Ok(Some(values)),
        Some(other) => Err(format!(
            "the value of \"{key}\" is {}, expected an array",
            jsonl::kind(&other)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(line: &str) -> Result<Sentence, String> {
        Sentence::of(jsonl::parse_object(line).unwrap(), &TokenKeys::default())
    }

    #[test]
    fn names_and_indices_are_read_under_each_usual_key() {
        for key in LABELS {
            let line = format!(r#"{{"tokens": ["a", "b"], "{key}": ["O", 3], "id": 1}}"#);
            let expected = Sentence {
                words: vec!["a".into(), "b".into()],
                labels: vec!["O".into(), "3".into()],
            };
            assert_eq!(sentence(&line), Ok(expected));
        }
    }

    #[test]
    fn each_malformed_object_is_refused_with_its_reason() {
        for (line, reason) in [
            (r#"{"words": ["a"]}"#, "no key \"tokens\""),
            (r#"{"tokens": "a b"}"#, "is a string, expected an array"),
            (r#"{"tokens": ["a", 1]}"#, "word 1 of \"tokens\""),
            (r#"{"tokens": ["a"], "tags": ["O", "O"]}"#, "2 labels for 1"),
            (r#"{"tokens": ["a"], "tags": [null]}"#, "word 0"),
            (r#"{"tokens": ["a"], "tags": [["O"]]}"#, "is an array"),
            (
                r#"{"tokens": ["a"], "tags": [0], "labels": [0]}"#,
                "\"labels\" as well as \"tags\"",
            ),
        ] {
            let message = sentence(line).unwrap_err();
            assert!(message.contains(reason), "{line}: {message}");
        }
    }

    #[test]
    fn a_format_has_one_name() {
        for format in TokenFormat::ALL {
            assert_eq!(format.name().parse::<TokenFormat>().unwrap(), format);
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
        }
        let message = "csv".parse::<TokenFormat>().unwrap_err().to_string();
        assert!(message.contains("`auto`, `jsonl`, `conll`"), "{message}");
    }
}
