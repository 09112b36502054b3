//! Adapters that bring their head, on bases that have another.

use crate::common::encoders::{
    classify, data, eval, learn, outcome, predict, same_metrics, stdout, train, with_tokenizer,
};
use crate::common::{fail, lora, model, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use test_support::tensors::json;

/// Families of checkpoints with a head for three classes.
const BASES: [&str; 3] = ["roberta", "v2", "gpt2"];

/// Returns a checkpoint of a family with a head for three classes, in `dir`.
fn base(family: &str, dir: &Path) -> PathBuf {
    if family != "gpt2" {
        let weights = classify(&format!("{family}_full/init"));
        return with_tokenizer(family, &weights, dir);
    }
    let out = dir.join("gpt2");
    let mut command = learn(&model(), &data("texts.jsonl"), &out);
    command.args(["--task", "classification", "--max-steps", "1", "--merge"]);
    succeed(&mut command);
    let merged = out.join("merged");
    let class = &json(&merged.join("config.json"))["architectures"][0];
    assert_eq!(class, "GPT2ForSequenceClassification");
    merged
}
/// Tasks that the head is not for.
const TASKS: [(&str, &str); 4] = [
    ("regression", "scores.jsonl"),
    ("regression", "moved.jsonl"),
    ("multi-label-classification", "feelings.jsonl"),
    ("token-classification", "tags.conll"),
];

fn merge(model: &Path, adapter: &Path, output: &Path) {
    let mut command = lora(["merge", "--device", "flex", "--verify", "--model"]);
    command.arg(model).arg("--adapter").arg(adapter);
    succeed(command.arg("--output").arg(output));
}

/// The base's head was judged although the adapter replaces it: what `--fresh-head` had trained could not be used.
#[test]
fn what_a_fresh_head_has_learned_is_used_on_the_same_base() {
    for family in BASES {
        let dir = tempfile::tempdir().unwrap();
        let base = base(family, dir.path());
        for (number, (task, file)) in TASKS.into_iter().enumerate() {
            let (file, out) = (data(file), dir.path().join(format!("out{number}")));
            let mut command = learn(&base, &file, &out);
            command.args(["--task", task, "--max-steps", "2"]);
            // The way out is named before weights are read.
            fail(&mut command, 2, &["3 classes", "fresh_head"]);
            command.args(["--fresh-head", "--eval-data"]).arg(&file);
            let trained = outcome(&mut command);
            let adapter = out.join("adapter");
            let with = |mut command: std::process::Command| {
                command.arg("--adapter").arg(&adapter);
                command
            };
            same_metrics(&succeed(&mut with(eval(&base, &file))), &trained);
            let predicted = stdout(with(predict(&base)).arg("--data").arg(&file));
            assert!(predicted.lines().count() > 10, "{predicted}");
            let merged = dir.path().join(format!("merged{number}"));
            merge(&base, &adapter, &merged);
            same_metrics(&succeed(&mut eval(&merged, &file)), &trained);
            let further = dir.path().join(format!("further{number}"));
            let mut command = with(learn(&base, &file, &further));
            succeed(command.args(["--task", task, "--max-steps", "1"]));
        }
    }
}

#[test]
fn the_best_adapter_is_kept_merged_and_resumed_on_a_base_with_another_head() {
    let dir = tempfile::tempdir().unwrap();
    let base = with_tokenizer("roberta", &classify("roberta_full/init"), dir.path());
    let (file, out) = (data("scores.jsonl"), dir.path().join("out"));
    let run = |steps: &str, more: &[&str]| {
        let mut command = train(&base, &file, &out);
        command.args(["--task", "regression", "--fresh-head", "--max-steps", steps]);
        command.args(["--keep-best", "--merge", "--save-steps", "1"]);
        command
            .args(["--eval-steps", "1", "--eval-data"])
            .arg(&file);
        outcome(command.args(more))
    };
    let trained = run("2", &[]);
    same_metrics(&succeed(&mut eval(&out.join("merged"), &file)), &trained);
    run("2", &["--resume"]);
}

/// Named adapters need nothing of the base's head either, and the model alone is then without one.
#[test]
fn named_adapters_bring_their_heads() {
    named_heads("roberta", "classifier");
    named_heads("gpt2", "score");
}

fn named_heads(family: &str, head: &str) {
    let dir = tempfile::tempdir().unwrap();
    let base = base(family, dir.path());
    let (file, out) = (data("scores.jsonl"), dir.path().join("out"));
    let mut command = learn(&base, &file, &out);
    succeed(command.args(["--task", "regression", "--fresh-head", "--max-steps", "1"]));
    let named = format!("a={}", out.join("adapter").display());
    let one = |more: &[&str]| {
        let mut command = predict(&base);
        command.args(["--text", "A pub."]).args(more);
        command
    };
    let expected = stdout(one(&[]).arg("--adapter").arg(out.join("adapter")));
    let found = stdout(&mut one(&["--adapter", &named, "--use", "a"]));
    assert_eq!(found, expected);
    fail(
        &mut one(&["--adapter", &named]),
        1,
        &["names no adapter", &format!("no trained {head}")],
    );
}

/// PEFT's own adapter, without a `config.json`, for more classes than the base has.
#[test]
fn an_adapter_of_peft_replaces_a_head_of_another_size() {
    let dir = tempfile::tempdir().unwrap();
    let source = with_tokenizer("roberta", &classify("models/roberta"), dir.path());
    let two = dir.path().join("two");
    let only = dir.path().join("only.jsonl");
    let texts = std::fs::read_to_string(data("texts.jsonl")).unwrap();
    let lines = texts.lines().filter(|line| !line.contains("mixed"));
    std::fs::write(&only, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let mut command = learn(&source, &only, &two);
    succeed(command.args(["--max-steps", "1", "--merge"]));
    let base = two.join("merged");
    assert_eq!(json(&base.join("config.json"))["id2label"]["1"], "good");
    let mut command = predict(&base);
    command.args(["--json", "--text", "A pub.", "--adapter"]);
    let output = stdout(command.arg(classify("roberta_weights/init")));
    let predicted: Value = serde_json::from_str(output.trim()).unwrap();
    assert_eq!(predicted["scores"].as_object().unwrap().len(), 3);
}
