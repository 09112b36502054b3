//! Names of the rows of a head, where those of data, adapter and base meet, and what a head is for.

use crate::common::encoders::{
    classify, data, eval, learn, lines, numbers, outcome, predict, printed, stdout, with_tokenizer,
};
use crate::common::{fail, fixtures, lora, succeed};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use test_support::tensors::json as read;

/// A base with a head for three classes: `bad`, `good` and `mixed`, unless `config` says otherwise.
fn base(dir: &Path, config: Value) -> PathBuf {
    let base = with_tokenizer("roberta", &classify("roberta_full/init"), dir);
    let path = base.join("config.json");
    let mut file = read(&path);
    for (key, value) in config.as_object().unwrap() {
        file[key] = value.clone();
    }
    std::fs::write(path, file.to_string()).unwrap();
    base
}

fn named(names: [&str; 3]) -> Value {
    json!({"id2label": {"0": names[0], "1": names[1], "2": names[2]}, "label2id": {}})
}

fn labels_of(dir: &Path) -> Vec<String> {
    let labels = read(&dir.join("config.json"))["id2label"].clone();
    let labels = labels.as_object().unwrap().values();
    labels
        .map(|name| name.as_str().unwrap().to_string())
        .collect()
}

/// PEFT writes no names; those of the base's configuration count there.
#[test]
fn an_adapter_without_names_takes_those_of_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path(), json!({}));
    let adapter = classify("roberta_weights/init");
    let merged = dir.path().join("merged");
    let mut command = lora(["merge", "--device", "flex", "--model"]);
    command.arg(&base).arg("--adapter").arg(&adapter);
    succeed(command.arg("--output").arg(&merged));
    assert_eq!(labels_of(&merged), ["bad", "good", "mixed"]);
    for expected in read(&classify("use.json"))["predicted"].as_array().unwrap() {
        let text = expected["text"].as_str().unwrap();
        let mut alone = predict(&merged);
        let mut with = predict(&base);
        for command in [&mut alone, with.arg("--adapter").arg(&adapter)] {
            let output = stdout(command.args(["--json", "--text", text]));
            let found: Value = serde_json::from_str(output.trim()).unwrap();
            assert_eq!(found["prediction"], expected["prediction"], "{text}");
            let scores = found["scores"].as_object().unwrap().values().cloned();
            let scores = numbers(&Value::Array(scores.collect()));
            for (found, expected) in scores.iter().zip(numbers(&expected["scores"])) {
                // Float32 on both sides.
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{text}: {found} {expected}"
                );
            }
        }
    }
    // Trained further it has the names, and data by name.
    let out = dir.path().join("out");
    let mut command = learn(&base, &data("texts.jsonl"), &out);
    succeed(
        command
            .args(["--max-steps", "1", "--adapter"])
            .arg(&adapter),
    );
    assert_eq!(labels_of(&out.join("adapter")), ["bad", "good", "mixed"]);
}

/// Data whose classes sort otherwise than the rows of the head follow the head: a run starts where an evaluation stands.
#[test]
fn data_follows_the_order_and_the_writing_of_the_base() {
    let dir = tempfile::tempdir().unwrap();
    let file = data("texts.jsonl");
    let names = ["MIXED", "Good", "b_a-d"];
    let base = base(dir.path(), named(names));
    let evaluated = printed(&succeed(&mut eval(&base, &file)));
    let loss =
        |metrics: &[(String, f64)]| metrics.iter().find(|(name, _)| name == "loss").unwrap().1;
    // By index where the data has numbers.
    let numbered = dir.path().join("numbered.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = ["mixed", "good", "bad"]
        .iter()
        .zip(0..)
        .fold(text, |text, (name, index)| {
            text.replace(
                &format!("\"label\": \"{name}\""),
                &format!("\"label\": {index}"),
            )
        });
    std::fs::write(&numbered, text).unwrap();
    let evaluated_numbers = printed(&succeed(&mut eval(&base, &numbered)));
    assert_eq!(loss(&evaluated), loss(&evaluated_numbers));
    for (number, (file, more)) in [
        (&file, &[][..]),
        (&numbered, &[]),
        (&file, &["--labels", "bad,good,mixed"]),
    ]
    .into_iter()
    .enumerate()
    {
        let out = dir.path().join(format!("out{number}"));
        let mut command = learn(&base, file, &out);
        command.args(["--max-steps", "1", "--eval-data"]).arg(file);
        let trained = outcome(command.args(more));
        let before = trained["before"]["loss"].as_f64().unwrap();
        assert!((before - loss(&evaluated)).abs() < 5.1e-5, "{trained}");
        assert_eq!(labels_of(&out.join("adapter")), names);
    }
}

#[test]
fn glue_follows_the_order_of_the_base() {
    let dir = tempfile::tempdir().unwrap();
    let file = fixtures().join("glue/glue/mnli/train.tsv");
    let names = ["CONTRADICTION", "neutral", "Entailment"];
    let base = base(dir.path(), named(names));
    let evaluated = printed(&succeed(eval(&base, &file).args(["--task", "glue/mnli"])));
    let out = dir.path().join("out");
    let mut command = learn(&base, &file, &out);
    command.args(["--task", "glue/mnli", "--max-steps", "1", "--eval-data"]);
    let trained = outcome(command.arg(&file));
    let loss = evaluated.iter().find(|(name, _)| name == "loss").unwrap().1;
    assert!((trained["before"]["loss"].as_f64().unwrap() - loss).abs() < 5.1e-5);
    assert_eq!(labels_of(&out.join("adapter")), names);
}

#[test]
fn other_classes_than_those_of_the_head_are_refused_with_both_lists() {
    let dir = tempfile::tempdir().unwrap();
    let base = base(dir.path(), named(["happy", "sad", "mixed"]));
    let (file, out) = (data("texts.jsonl"), dir.path().join("out"));
    let lists = ["happy", "sad", "bad", "good", "mixed"];
    let with = |last: &'static str| [&lists[..], &[last]].concat();
    fail(&mut learn(&base, &file, &out), 2, &with("fresh_head"));
    let mut command = learn(&base, &file, &out);
    fail(
        command.args(["--labels", "bad,good,mixed"]),
        2,
        &with("fresh_head"),
    );
    fail(&mut eval(&base, &file), 1, &with("unknown label"));
    let glue = fixtures().join("glue/glue/mnli/train.tsv");
    let mut command = learn(&base, &glue, &out);
    fail(
        command.args(["--task", "glue/mnli"]),
        2,
        &["happy", "sad", "entailment", "contradiction", "fresh_head"],
    );
    assert!(!out.exists());
    succeed(learn(&base, &file, &out).args(["--max-steps", "1", "--fresh-head"]));
    assert_eq!(labels_of(&out.join("adapter")), ["bad", "good", "mixed"]);
}

/// A head without names is named by an option, and a gap in the names is explained.
#[test]
fn a_head_without_names_can_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let base_without = base(dir.path(), named(["LABEL_0", "LABEL_1", "LABEL_2"]));
    let file = data("texts.jsonl");
    fail(
        &mut eval(&base_without, &file),
        1,
        &["`LABEL_0`", "`bad`", "`labels`"],
    );
    succeed(eval(&base_without, &file).args(["--labels", "bad,good,mixed"]));
    let words = ["option `labels`", "2 outputs", "has 3"];
    fail(
        eval(&base_without, &file).args(["--labels", "bad,good"]),
        2,
        &words,
    );
    let output = stdout(predict(&base_without).args(["--text", "a", "--labels", "bad,good,mixed"]));
    assert!(
        ["bad", "good", "mixed"]
            .iter()
            .any(|name| output.starts_with(name)),
        "{output}"
    );
    let gap = base(
        dir.path(),
        json!({"id2label": {"0": "a", "1": "b", "3": "c"}}),
    );
    let words = [
        "id2label",
        "0 to 2 of the head, and 2 has none",
        "without gaps",
    ];
    fail(predict(&gap).args(["--text", "a"]), 1, &words);
    // Names that no data could tell apart are no obstacle to a prediction.
    let odd = base(dir.path(), named(["same", "same", " "]));
    let line = stdout(predict(&odd).args(["--text", "a", "--json"]));
    let line: Value = serde_json::from_str(line.trim()).unwrap();
    let scores = line["scores"].as_object().unwrap();
    assert_eq!(scores.keys().collect::<Vec<_>>(), ["same", "same (1)", " "]);
    fail(&mut eval(&odd, &file), 2, &["both named `same`"]);
}

/// `problem_type` says what a head of three outputs is for, and not their number.
#[test]
fn a_head_is_what_the_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["anger", "joy", "surprise"];
    let mut config = named(names);
    config["problem_type"] = json!("multi_label_classification");
    let base_of_sets = base(dir.path(), config.clone());
    let one = |base: &Path, more: &[&str]| -> Value {
        let mut command = predict(base);
        command.args(["--json", "--text", "A pub."]).args(more);
        serde_json::from_str(stdout(&mut command).trim()).unwrap()
    };
    let found = one(&base_of_sets, &[]);
    let scores = found["scores"].as_object().unwrap();
    let above = |threshold: f64| -> Vec<Value> {
        let above = scores
            .iter()
            .filter(|(_, p)| p.as_f64().unwrap() > threshold);
        above.map(|(name, _)| json!(name)).collect()
    };
    assert_eq!(found["prediction"], Value::Array(above(0.5)));
    let all = one(&base_of_sets, &["--threshold", "0"]);
    assert_eq!(all["prediction"], json!(names));
    let none = one(&base_of_sets, &["--threshold", "0.99,0.99,1"]);
    assert_eq!(none["prediction"], json!([]));
    // Lists and columns are the same data.
    let file = data("feelings.jsonl");
    let expected = succeed(&mut eval(&base_of_sets, &file));
    assert!(
        expected.contains("micro_f1") && expected.contains("macro_f1"),
        "{expected}"
    );
    let columns = dir.path().join("columns.csv");
    let rows = lines(&file).into_iter().map(|row| {
        let labels = row["labels"].as_array().unwrap();
        let flags =
            ["surprise", "anger", "joy"].map(|name| usize::from(labels.contains(&json!(name))));
        format!(
            "\"{}\",{},{},{}\n",
            row["text"].as_str().unwrap(),
            flags[0],
            flags[1],
            flags[2]
        )
    });
    let rows: String = rows.collect();
    std::fs::write(&columns, format!("text,Surprise,ANGER,joy\n{rows}")).unwrap();
    let mut command = eval(&base_of_sets, &columns);
    let found = succeed(command.args(["--label-column", "Surprise,ANGER,joy"]));
    assert_eq!(printed(&found), printed(&expected));
    fail(
        eval(&base_of_sets, &file).args(["--task", "classification"]),
        2,
        &["3 classes, any number of them"],
    );
    // A run on it is one of several classes without being told.
    let out = dir.path().join("out");
    succeed(learn(&base_of_sets, &file, &out).args(["--max-steps", "1", "--threshold", "0.3"]));
    assert_eq!(labels_of(&out.join("adapter")), names);
    let written = read(&out.join("adapter/config.json"));
    assert_eq!(written["problem_type"], "multi_label_classification");

    // Flags have no names, and have the order of the head.
    let flags = dir.path().join("flags.jsonl");
    let text = "{\"text\": \"a\", \"labels\": [0.0, 1.0, 1.0]}\n{\"text\": \"b\", \"labels\": [1.0, 0.0, 0.0]}\n";
    std::fs::write(&flags, text).unwrap();
    let out = dir.path().join("flagged");
    succeed(learn(&base_of_sets, &flags, &out).args(["--max-steps", "1"]));
    assert_eq!(labels_of(&out.join("adapter")), names);

    config["problem_type"] = json!("regression");
    let base_of_scores = base(dir.path(), config);
    let found = one(&base_of_scores, &[]);
    assert_eq!(numbers(&found["prediction"]).len(), 3);
    assert_eq!(found["scores"]["joy"], found["prediction"][1]);
    let scores = dir.path().join("scores.csv");
    let rows = "text,joy,anger,surprise\na pub,0.5,-1,2\nfish,1,0,0.25\n";
    std::fs::write(&scores, rows).unwrap();
    let predictions = dir.path().join("predictions.jsonl");
    let mut command = eval(&base_of_scores, &scores);
    command.args(["--label-column", "joy,anger,surprise", "--predictions"]);
    let output = succeed(command.arg(&predictions));
    let rows = lines(&predictions);
    assert_eq!(rows[0]["label"], json!([-1.0, 0.5, 2.0]));
    let errors = rows.iter().flat_map(|row| {
        let [found, label] = ["prediction", "label"].map(|key| numbers(&row[key]));
        found
            .into_iter()
            .zip(label)
            .map(|(x, y)| (x - y).powi(2))
            .collect::<Vec<_>>()
    });
    let mse = errors.sum::<f64>() / 6.0;
    let found = printed(&output)
        .into_iter()
        .find(|(name, _)| name == "mse")
        .unwrap()
        .1;
    assert!((mse - found).abs() < 5.1e-5, "{mse} {output}");
}
