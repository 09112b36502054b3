//! Words with tags, from CoNLL's columns and from JSON Lines.

use lora_train::data::{LabelSet, TokenFormat, TokenKeys, TokenSource, Unlabelled, read_tokens};

use super::write;

const CONLL: &str =
    "-DOCSTART- -X- -X- O\n\nAda NNP B-NP B-PER\nwrote VBD B-VP O\n\nParis NNP B-NP B-LOC\n";

#[test]
fn words_are_read_alike_from_conll_and_json_lines() {
    let folder = tempfile::tempdir().unwrap();
    let labels = LabelSet::new(["O", "B-PER", "B-LOC"]).unwrap();
    let jsonl = "{\"tokens\": [\"Ada\", \"wrote\"], \"ner_tags\": [1, 0]}\n{\"tokens\": [\"Paris\"], \"ner_tags\": [\"B-LOC\"]}\n";
    for (name, text) in [
        ("a.conll", CONLL),
        ("a.txt", CONLL),
        ("a.jsonl", jsonl),
        ("a.txt", jsonl),
    ] {
        let path = write(&folder, name, text);
        let source = TokenSource {
            labels: Some(&labels),
            ..TokenSource::default()
        };
        let data = read_tokens(&path, &source).unwrap();
        assert_eq!(data.report.to_string(), "2 records");
        assert_eq!(data.labels.as_ref(), Some(&labels));
        assert_eq!(data.records[0].words, ["Ada", "wrote"]);
        assert_eq!(data.records[0].labels, Some(vec![1, 0]));
        assert_eq!(data.records[1].labels, Some(vec![2]));
    }
    // Gathered, they are sorted.
    let path = write(&folder, "a.conll", CONLL);
    let data = read_tokens(&path, &TokenSource::default()).unwrap();
    assert_eq!(data.labels.unwrap().names(), ["B-LOC", "B-PER", "O"]);
    assert_eq!(data.records[0].labels, Some(vec![1, 2]));
    assert_eq!(data.records[1].origin.line(), 6);
}

#[test]
fn words_without_labels_or_with_unknown_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let labels = LabelSet::new(["O", "B-PER"]).unwrap();
    for (name, text, reason) in [
        ("a.conll", "a\nb\n", "line 1: no labels"),
        (
            "a.conll",
            "a B-X\n",
            "word 0, counted from 0: unknown label `B-X`; the labels are `O`, `B-PER`",
        ),
        ("a.conll", "\n\n", "nothing to use"),
        ("a.jsonl", "", "nothing to use"),
        (
            "a.jsonl",
            "{\"tokens\": [\"a\"], \"tags\": [2]}",
            "class 2 is out of range",
        ),
        ("a.jsonl", "{\"tokens\": [\"a\"]}", "line 1: no labels"),
        ("a.jsonl", "{\"tokens\": [], \"tags\": []}", "without words"),
        (
            "a.jsonl",
            "{\"tokens\": [\" \"], \"tags\": [\"O\"]}",
            "word 0, counted from 0, is blank",
        ),
    ] {
        let path = write(&folder, name, text);
        let source = TokenSource {
            labels: Some(&labels),
            ..TokenSource::default()
        };
        let message = read_tokens(&path, &source).unwrap_err().to_string();
        assert!(message.contains(reason), "{text}: {message}");
    }

    let path = write(&folder, "a.jsonl", "{\"words\": [\"a\"]}\n");
    let source = TokenSource {
        format: TokenFormat::JsonLines,
        keys: TokenKeys {
            words: Some("words".into()),
            labels: None,
        },
        labels: Some(&labels),
        unlabelled: Unlabelled::Accept,
    };
    let data = read_tokens(&path, &source).unwrap();
    assert_eq!(data.records[0].labels, None);
    assert_eq!(data.report.unlabelled, 1);
}
