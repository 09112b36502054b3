//! Words with tags, from CoNLL's columns and from JSON Lines.

use lora_train::data::{
    Columns, DataFormat, Label, LabelSet, LabelledLayout, LabelledSource, Unlabelled, read_labelled,
};

use super::write;

fn tags(tags: &[usize]) -> Option<Label> {
    Some(Label::Tags(tags.to_vec()))
}

const CONLL: &str =
    "-DOCSTART- -X- -X- O\n\nAda NNP B-NP B-PER\nwrote VBD B-VP O\n\nParis NNP B-NP B-LOC\n";

#[test]
fn words_are_read_alike_from_conll_and_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let layout = LabelledLayout::Words(Columns::default());
    let labels = LabelSet::new(["O", "B-PER", "B-LOC"]).unwrap();
    let jsonl = "{\"tokens\": [\"Ada\", \"wrote\"], \"ner_tags\": [1, 0]}\n{\"tokens\": [\"Paris\"], \"ner_tags\": [\"B-LOC\"]}\n";
    for (name, text) in [
        ("a.conll", CONLL),
        ("a.txt", CONLL),
        ("a.jsonl", jsonl),
        ("a.txt", jsonl),
    ] {
        let path = write(&folder, name, text);
        let source = LabelledSource::new(&layout).with_labels(Some(&labels));
        let data = read_labelled(&path, &source).unwrap();
        assert_eq!(data.report.to_string(), "2 records");
        assert_eq!(data.labels.as_ref(), Some(&labels));
        assert_eq!(data.records[0].content.words(), ["Ada", "wrote"]);
        assert_eq!(data.records[0].label, tags(&[1, 0]));
        assert_eq!(data.records[1].label, tags(&[2]));
    }
    // Gathered, they are sorted.
    let path = write(&folder, "a.conll", CONLL);
    let data = read_labelled(&path, &LabelledSource::new(&layout)).unwrap();
    assert_eq!(data.labels.unwrap().names(), ["B-LOC", "B-PER", "O"]);
    assert_eq!(data.records[0].label, tags(&[1, 2]));
    assert_eq!(data.records[1].origin.line(), 6);
}

#[test]
fn words_without_labels_or_with_unknown_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let layout = LabelledLayout::Words(Columns::default());
    let labels = LabelSet::new(["O", "B-PER"]).unwrap();
    for (name, text, reason) in [
        ("a.conll", "a\nb\n", "line 1: no labels"),
        (
            "a.conll",
            "a B-X\n",
            "word 0, counted from 0: unknown label `B-X`; the labels are `O`, `B-PER`",
        ),
        ("a.conll", "\n\n", "no usable example"),
        ("a.jsonl", "", "no usable example"),
        (
            "a.jsonl",
            "{\"tokens\": [\"a\"], \"tags\": [2]}",
            "class 2 is out of range",
        ),
        ("a.jsonl", "{\"tokens\": [\"a\"]}", "line 1: no labels"),
    ] {
        let path = write(&folder, name, text);
        let source = LabelledSource::new(&layout).with_labels(Some(&labels));
        let message = read_labelled(&path, &source).unwrap_err().to_string();
        assert!(message.contains(reason), "{text}: {message}");
    }

    let path = write(&folder, "a.jsonl", "{\"words\": [\"a\"]}\n");
    let layout = LabelledLayout::Words(Columns::text("words"));
    let source = LabelledSource::new(&layout)
        .with_format(DataFormat::JsonLines)
        .with_labels(Some(&labels))
        .with_unlabelled(Unlabelled::Accept);
    let data = read_labelled(&path, &source).unwrap();
    assert_eq!(data.records[0].label, None);
    assert_eq!(data.report.unlabelled, 1);
}
