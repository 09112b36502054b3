//! Words with a label each, from JSON Lines or the columns of `CoNLL`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::conll::{Sentence, Sentences};
use super::records::{LabelledData, ReadReport, map_classes};
use crate::data::columns::Columns;
use crate::data::format::DataFormat;
use crate::data::jsonl::{self, Object, Objects};
use crate::data::labels::{Classes, Unlabelled, raw_label};
use crate::data::lines::is_blank;
use crate::data::record::{Content, Label, Origin, Record};
use crate::error::TrainError;

/// Default key of the words.
const WORDS: &str = "tokens";
/// Default keys of the labels.
const LABELS: [&str; 3] = ["ner_tags", "labels", "tags"];

/// Reads every sentence of the files, one file after the other, with the report of each.
pub(super) fn read(
    paths: &[PathBuf],
    format: DataFormat,
    columns: &Columns,
    adapter: Option<&str>,
    mut classes: Classes,
    unlabelled: Unlabelled,
) -> Result<(LabelledData, Vec<ReadReport>), TrainError> {
    let mut records: Vec<Record> = Vec::new();
    let mut reports = Vec::with_capacity(paths.len());
    for path in paths {
        let before = records.len();
        let mut is_numbered = false;
        let mut add = |sentence: Result<Sentence, String>, origin: Origin| {
            let record = sentence.and_then(|it| it.record(&origin, &mut classes, unlabelled));
            records.push(record.map_err(|message| origin.error(message))?);
            Ok::<(), TrainError>(())
        };
        if format.resolve_words(path)? == DataFormat::JsonLines {
            let mut objects = Objects::open(path)?;
            while let Some((object, origin)) = objects.next_object()? {
                add(Sentence::from_object(object, columns, adapter), origin)?;
            }
        } else {
            let mut sentences = Sentences::open(path)?;
            while let Some((sentence, origin)) = sentences.next_sentence()? {
                add(Ok(sentence), origin)?;
            }
            is_numbered = sentences.has_index;
        }
        let of_file = &records[before..];
        if of_file.is_empty() {
            return Err(TrainError::data_empty(path, "it has no sentence"));
        }
        let without = of_file.iter().filter(|record| record.label.is_none());
        reports.push(ReadReport {
            records: of_file.len(),
            unlabelled: without.count(),
            numbered: if is_numbered { of_file.len() } else { 0 },
            ..ReadReport::default()
        });
    }
    let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
    let (labels, mapping) = classes.finish(path)?;
    if let Some(mapping) = mapping {
        map_classes(&mut records, &mapping);
    }
    let data = LabelledData {
        records,
        labels,
        outputs: Vec::new(),
        report: ReadReport::of_all(&reports),
    };
    Ok((data, reports))
}

impl Sentence {
    /// Reads the sentence of an object.
    fn from_object(
        mut object: Object,
        columns: &Columns,
        adapter: Option<&str>,
    ) -> Result<Self, String> {
        let adapter = adapter.map(|key| jsonl::optional_string(object.remove(key), key));
        let adapter = adapter.transpose()?.flatten();
        let adapter = adapter.filter(|name| !is_blank(name));
        let words_key = columns.text.as_deref().unwrap_or(WORDS);
        let labels_key = match &columns.label {
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
            .ok_or_else(|| format!("the object has no key \"{words_key}\""))?;
        let words = words.into_iter().enumerate().map(|(at, word)| match word {
            Value::String(word) => Ok(word),
            other => Err(format!(
                "word {at} of \"{words_key}\", counted from 0, is {}, expected a string",
                jsonl::kind(&other)
            )),
        });
        let words = words.collect::<Result<Vec<_>, _>>()?;
        let labels = labels_key.map(|key| list(object.remove(key), key));
        let labels = labels.transpose()?.flatten();
        if let Some(labels) = labels.as_ref().filter(|labels| labels.len() != words.len()) {
            return Err(format!(
                "{} labels for {} words; each word has one",
                labels.len(),
                words.len()
            ));
        }
        let labels = labels.into_iter().flatten().enumerate();
        let labels = labels.map(|(at, label)| {
            raw_label(Some(label))?
                .ok_or_else(|| format!("word {at}, counted from 0, has no label"))
        });
        let labels = labels.collect::<Result<_, String>>()?;
        Ok(Self {
            words,
            labels,
            adapter,
        })
    }

    /// Returns the record, with a provisional class for each label.
    fn record(
        self,
        origin: &Origin,
        classes: &mut Classes,
        unlabelled: Unlabelled,
    ) -> Result<Record, String> {
        if self.labels.is_empty() && !self.words.is_empty() && unlabelled == Unlabelled::Refuse {
            return Err(
                "no labels; to train and to evaluate, every sentence needs them".to_string(),
            );
        }
        let labels = self.labels.iter().enumerate().map(|(at, label)| {
            classes.class_at(label, origin, &format!("word {at}, counted from 0: "))
        });
        let labels = labels.collect::<Result<Vec<_>, _>>()?;
        // A sentence without words has all of its labels.
        let is_known = !labels.is_empty() || self.words.is_empty();
        let label = is_known.then_some(Label::Tags(labels));
        let record = Record::new(Content::Words { words: self.words }, origin.clone());
        Ok(record.with_label(label).with_adapter(self.adapter))
    }
}

/// Returns the list under a key; `None` if the key is missing or null.
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
        Sentence::from_object(
            jsonl::parse_object(line).unwrap(),
            &Columns::default(),
            Some("adapter"),
        )
    }

    #[test]
    fn names_and_indices_are_read_under_each_usual_key() {
        for key in LABELS {
            let line = format!(r#"{{"tokens": ["a", "b"], "{key}": ["O", 3], "id": 1}}"#);
            let expected = Sentence {
                words: vec!["a".into(), "b".into()],
                labels: vec!["O".into(), "3".into()],
                adapter: None,
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
    fn the_adapter_may_be_missing_or_null() {
        for (adapter, expected) in [
            ("", None),
            (", \"adapter\": null", None),
            (", \"adapter\": \"de\"", Some("de")),
        ] {
            let line = format!("{{\"tokens\": [\"a\"], \"tags\": [0]{adapter}}}");
            assert_eq!(sentence(&line).unwrap().adapter.as_deref(), expected);
        }
    }
}
