//! Labelled data of one's own: its columns, and what its labels mean.

use lora_train::TrainError;
use lora_train::data::{
    Columns, DataFormat, Label, LabelKind, LabelSet, LabelledLayout, LabelledSource, Unlabelled,
    read_labelled,
};

use super::{classes, read, refused, texts, write};

fn own(kind: LabelKind) -> LabelledLayout {
    LabelledLayout::Own {
        columns: Columns::default(),
        kind,
    }
}

#[test]
fn own_data_is_read_alike_from_each_format() {
    let layout = own(LabelKind::Classes);
    for (name, text) in [
        (
            "a.jsonl",
            "{\"text\": \"a, \\\"b\\\"\", \"label\": \"no\", \"pair\": \"c\"}\n{\"pair\": \"\", \"text\": \"d\", \"label\": \"yes\"}\n",
        ),
        (
            "a.csv",
            "label,text,pair\nno,\"a, \"\"b\"\"\",c\n yes ,d,\n",
        ),
        ("a.tsv", "text\tlabel\tpair\na, \"b\"\tno\tc\nd\tyes\t\n"),
    ] {
        let data = read(name, text, &layout, None, Unlabelled::Refuse).unwrap();
        assert_eq!(data.labels.as_ref().unwrap().names(), ["no", "yes"]);
        assert_eq!(classes(&data), [Some(0), Some(1)], "{name}");
        assert_eq!(texts(&data.records[0]).0, "a, \"b\"", "{name}");
        let seconds: Vec<Option<&str>> = data.records.iter().map(|r| texts(r).1).collect();
        assert_eq!(seconds, [Some("c"), Some("")], "{name}");
        assert_eq!(data.report.blank, 1, "{name}");
    }
}

#[test]
fn other_columns_can_be_named_and_then_must_be_there() {
    let columns = Columns {
        text: Some("body".into()),
        pair: Some("title".into()),
        label: Some("stars".into()),
        id: Some("key".into()),
        ..Columns::default()
    };
    let layout = LabelledLayout::Own {
        columns,
        kind: LabelKind::Classes,
    };
    let text = "key,title,body,stars,label\nk1,t,b,5,x\nk2,u,c,1,y\n";
    let data = read("a.csv", text, &layout, None, Unlabelled::Refuse).unwrap();
    let record = &data.records[0];
    assert_eq!(texts(record), ("b", Some("t")));
    assert_eq!(
        (record.id.as_deref(), &record.label),
        (Some("k1"), &Some(Label::Class(1)))
    );
    assert_eq!(data.labels.unwrap().names(), ["1", "5"]);

    for column in ["key", "title", "body", "stars"] {
        let text = text.replace(column, "other");
        // What is named must be there, also to predict.
        let error = read("a.csv", &text, &layout, None, Unlabelled::Accept).unwrap_err();
        let TrainError::Column {
            column: missing, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(missing, column);
    }
}

#[test]
fn evaluation_data_is_held_to_the_labels_of_the_training_data() {
    let layout = own(LabelKind::Classes);
    let train = "text,label\na,good\nb,bad\n";
    let labels = read("train.csv", train, &layout, None, Unlabelled::Refuse)
        .unwrap()
        .labels
        .unwrap();
    let eval = |text| read("eval.csv", text, &layout, Some(&labels), Unlabelled::Refuse);

    // One label alone, in another order of appearance, and the index of the other.
    assert_eq!(classes(&eval("text,label\nc,good\n").unwrap()), [Some(1)]);
    assert_eq!(classes(&eval("text,label\nc,0\n").unwrap()), [Some(0)]);
    refused(
        eval("text,label\nc,good\nd,fair\n"),
        &["eval.csv, line 3: unknown label `fair`", "`bad`, `good`"],
    );
    refused(
        eval("text,label\nd,2\n"),
        &["line 2: class 2 is out of range"],
    );
    refused(eval("text,label\nd,-1\n"), &["line 2: no label"]);
}

#[test]
fn scores_are_numbers_of_any_size() {
    let layout = own(LabelKind::Score);
    let text = "{\"text\": \"a\", \"label\": -1}\n{\"text\": \"b\", \"label\": 2.5}\n{\"text\": \"c\", \"label\": \"1e3\"}\n";
    let data = read("a.jsonl", text, &layout, None, Unlabelled::Refuse).unwrap();
    let scores: Vec<f64> = data
        .records
        .iter()
        .filter_map(|record| record.label.as_ref().and_then(Label::score))
        .collect();
    assert_eq!(scores, [-1.0, 2.5, 1000.0]);
    assert_eq!(data.labels, None);

    for label in ["inf", "NaN", "high"] {
        let text = format!("text,label\na,{label}\n");
        let result = read("a.csv", &text, &layout, None, Unlabelled::Refuse);
        refused(result, &["line 2", "is no score", "choose classes"]);
    }
    let labels = LabelSet::new(["a", "b"]).unwrap();
    let result = read(
        "a.csv",
        "text,label\na,1\n",
        &layout,
        Some(&labels),
        Unlabelled::Refuse,
    );
    refused(result, &["has 1 numbers", "outputs are 2: `a`, `b`"]);
}

#[test]
fn records_without_a_label_are_for_prediction_only() {
    let layout = own(LabelKind::Classes);
    let labels = LabelSet::new(["bad", "good"]).unwrap();
    for (name, text) in [
        ("a.csv", "text\na\nb\n"),
        ("a.csv", "text,label\na,\nb,-1\n"),
        (
            "a.jsonl",
            "{\"text\": \"a\"}\n{\"text\": \"b\", \"label\": null}\n",
        ),
    ] {
        let accept = Unlabelled::Accept;
        let data = read(name, text, &layout, Some(&labels), accept).unwrap();
        assert_eq!(classes(&data), [None, None], "{name}");
        assert_eq!(data.report.unlabelled, 2, "{name}");
        let strict = read(name, text, &layout, Some(&labels), Unlabelled::Refuse);
        refused(strict, &["label"]);
    }
    // A label may be missing in the first object and be there in the second.
    let text = "{\"text\": \"a\"}\n{\"text\": \"b\", \"label\": \"good\"}\n";
    let data = read("a.jsonl", text, &layout, Some(&labels), Unlabelled::Accept).unwrap();
    assert_eq!(classes(&data), [None, Some(1)]);
}

#[test]
fn own_data_that_cannot_be_meant_is_refused() {
    let layout = own(LabelKind::Classes);
    let many: String = (0..=10_000).map(|n| format!("a,l{n}\n")).collect();
    let many = format!("text,label\n{many}");
    for (name, text, reasons) in [
        (
            "a.csv",
            "sentence,label\na,0\n",
            vec!["no column `text`", "`sentence`, `label`"],
        ),
        (
            "a.csv",
            "text,class\na,0\n",
            vec!["no column `label`", "`text`, `class`"],
        ),
        ("a.csv", "", vec!["no usable example"]),
        ("a.csv", "text,label\n", vec!["no usable example"]),
        (
            "a.csv",
            "text,label\na,same\nb,same\n",
            vec!["every label is `same`"],
        ),
        (
            "a.csv",
            "text,label\na,0\nb,-1\n",
            vec!["line 3", "name the labels"],
        ),
        (
            "a.csv",
            "text,label\na,0.5\n",
            vec!["line 2", "choose regression"],
        ),
        (
            "a.csv",
            many.as_str(),
            vec!["line 10002", "more than 10000 different labels"],
        ),
        (
            "a.jsonl",
            "{\"text\": \"a\", \"pair\": 3, \"label\": 0}\n",
            vec!["line 1", "\"pair\" is a number"],
        ),
        (
            "a.jsonl",
            "{\"text\": 7, \"label\": 0}\n",
            vec!["\"text\" is a number"],
        ),
        (
            "a.jsonl",
            "{\"text\": \"a\", \"label\": 0, \"id\": [1]}\n",
            vec!["the id is an array"],
        ),
    ] {
        refused(
            read(name, text, &layout, None, Unlabelled::Refuse),
            &reasons,
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "a.csv", "text,label\na,0\n");
    let source = LabelledSource::new(&layout).with_format(DataFormat::E2e);
    refused(read_labelled(&path, &source), &["`e2e` has no labels"]);
}

#[test]
fn the_second_text_and_the_adapter_may_be_missing_from_any_object() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"text": "a", "label": 0}"#,
        r#"{"text": "b", "pair": "c", "label": 1, "adapter": "de"}"#,
        r#"{"text": "d", "pair": null, "label": 1, "adapter": null}"#,
    ];
    let named = LabelledLayout::Own {
        columns: Columns {
            pair: Some("pair".into()),
            ..Columns::default()
        },
        kind: LabelKind::Classes,
    };
    for first in 0..lines.len() {
        let mut lines = lines;
        lines.rotate_left(first);
        let path = write(&folder, "a.jsonl", &lines.join("\n"));
        for layout in [&own(LabelKind::Classes), &named] {
            let source = LabelledSource::new(layout).with_adapter_column(Some("adapter"));
            let mut records = read_labelled(&path, &source).unwrap().records;
            records.rotate_right(first);
            let seconds: Vec<Option<&str>> = records.iter().map(|r| texts(r).1).collect();
            assert_eq!(seconds, [None, Some("c"), None]);
            let adapters: Vec<Option<&str>> =
                records.iter().map(|r| r.adapter.as_deref()).collect();
            assert_eq!(adapters, [None, Some("de"), None]);
        }
    }
    // Where no object has the key that is named, it is misspelt.
    let text = "{\"text\": \"a\", \"label\": 0}\n{\"text\": \"b\", \"label\": 1}\n";
    let result = read("a.jsonl", text, &named, None, Unlabelled::Refuse);
    refused(result, &["a.jsonl", "`pair`"]);
}
