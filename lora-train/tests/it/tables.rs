//! Tables as Python programs write them, with quotes, an index or numbers of words, read as these programs read them.

use crate::common::fixtures;
use lora_train::data::{Columns, Content, Label, LabelledLayout, LabelledSource, read_labelled};
use serde_json::{Value, json};

fn expected(kind: &str) -> Vec<(String, Value)> {
    let text = std::fs::read(fixtures().join("tables/expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&text).unwrap();
    let files = expected[kind].as_object().unwrap().clone();
    files.into_iter().collect()
}

#[test]
fn texts_and_labels_are_those_of_pandas() {
    for (name, rows) in expected("texts") {
        let path = fixtures().join("tables").join(&name);
        let layout = LabelledLayout::default();
        let data = read_labelled(&path, &LabelledSource::new(&layout));
        let data = data.unwrap_or_else(|error| panic!("{name}: {error}"));
        let labels = data.labels.unwrap();
        let found = data.records.iter().map(|record| {
            let (Content::Text { text }, Some(Label::Class(class))) =
                (&record.content, &record.label)
            else {
                panic!("{name}: {record:?}");
            };
            json!([text, labels.names()[*class]])
        });
        assert_eq!(Value::Array(found.collect()), rows, "{name}");
    }
}

#[test]
fn words_are_told_from_their_numbers() {
    for (name, sentences) in expected("words") {
        let path = fixtures().join("tables").join(&name);
        let layout = LabelledLayout::Words(Columns::default());
        let data = read_labelled(&path, &LabelledSource::new(&layout));
        let data = data.unwrap_or_else(|error| panic!("{name}: {error}"));
        let labels = data.labels.unwrap();
        let found = data.records.iter().map(|record| {
            let Some(Label::Tags(tags)) = &record.label else {
                panic!("{name}: {record:?}");
            };
            let words = record.content.words().iter().zip(tags);
            let words = words.map(|(word, tag)| json!([word, labels.names()[*tag]]));
            Value::Array(words.collect())
        });
        assert_eq!(Value::Array(found.collect()), sentences, "{name}");
    }
}

#[test]
fn a_git_lfs_pointer_is_no_text() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["train.jsonl", "train.tsv", "train.conll"] {
        let path = dir.path().join(name);
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 9\n";
        std::fs::write(&path, pointer).unwrap();
        for layout in [
            LabelledLayout::default(),
            LabelledLayout::Words(Columns::default()),
        ] {
            let error = read_labelled(&path, &LabelledSource::new(&layout)).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("Git LFS pointer"), "{name}: {error}");
        }
    }
}
