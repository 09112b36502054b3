//! A decoder as a classifier, from the command line: trained, evaluated, merged and used.

use crate::common::encoders::{data, eval, learn, numbers, outcome, predict, same_metrics, stdout};
use crate::common::{adapter, fail, fixtures, lora, model, succeed};
use serde_json::{Value, json};
use std::path::Path;
use test_support::tensors::json;

fn scores(model: &Path, adapter: Option<&Path>) -> Vec<f64> {
    let mut command = predict(model);
    command.args(["--json", "--data"]).arg(data("texts.jsonl"));
    if let Some(adapter) = adapter {
        command.arg("--adapter").arg(adapter);
    }
    let lines = stdout(&mut command);
    let values = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let scores = line["scores"].as_object().unwrap().values();
        numbers(&scores.cloned().collect())
    });
    values.flatten().collect()
}

#[test]
fn a_language_model_becomes_a_classifier() {
    // Without a padding token, transformers refuses batches.
    becomes_a_classifier(&model(), "GPT2ForSequenceClassification", 299, &[]);
}

#[test]
fn a_decoder_of_the_llama_kind_becomes_a_classifier() {
    let base = fixtures().join("decoder20/base");
    let targets = ["--targets", "all-linear"];
    becomes_a_classifier(&base, "Qwen3ForSequenceClassification", 299, &targets);
}

fn becomes_a_classifier(model: &Path, class: &str, padding: u32, options: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (texts, run) = (data("texts.jsonl"), dir.path().join("run"));
    let mut command = learn(model, &texts, &run);
    command.args(options);
    command.args(["--task", "classification", "--epochs", "6", "--eval-data"]);
    let outcome = outcome(command.arg(&texts));
    let loss = |when: &str| outcome[when]["loss"].as_f64().unwrap();
    assert!(loss("after") < loss("before"), "{outcome}");

    let trained = run.join("adapter");
    let config = json(&trained.join("adapter_config.json"));
    assert_eq!(config["task_type"], "SEQ_CLS");
    assert_eq!(config["modules_to_save"], json!(["score"]));
    let names = adapter(&trained);
    let score = "base_model.model.score.weight";
    assert!(names.iter().any(|(name, ..)| name == score), "{names:?}");

    // The adapter tells the task.
    let mut command = eval(model, &texts);
    same_metrics(&succeed(command.arg("--adapter").arg(&trained)), &outcome);

    let merged = dir.path().join("merged");
    let mut command = lora(["merge", "--device", "flex", "--verify", "--model"]);
    command.arg(model).arg("--adapter").arg(&trained);
    succeed(command.arg("--output").arg(&merged));
    let config = json(&merged.join("config.json"));
    assert_eq!(config["architectures"], json!([class]));
    assert_eq!(config["pad_token_id"], padding);
    same_metrics(&succeed(&mut eval(&merged, &texts)), &outcome);
    let (apart, together) = (scores(model, Some(&trained)), scores(&merged, None));
    for (apart, together) in apart.iter().zip(&together) {
        // A merge adds in another order.
        assert!((apart - together).abs() < 1e-5, "{apart} {together}");
    }
    let mut command = lora(["generate", "--device", "flex", "--prompt", "a", "--model"]);
    fail(
        command.arg(&merged),
        2,
        &["continues no text", "lora predict"],
    );
}

#[test]
fn a_text_without_tokens_is_named_and_labels_that_nobody_reads_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.jsonl");
    let text = "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"\", \"label\": \"y\"}\n";
    std::fs::write(&path, text).unwrap();
    let run = dir.path().join("run");
    let mut command = learn(&model(), &path, &run);
    fail(
        command.args(["--task", "classification"]),
        1,
        &["train.jsonl, line 2", "no token"],
    );
    std::fs::write(&path, text.lines().next().unwrap()).unwrap();
    let output = succeed(learn(&model(), &path, &run).args(["--max-steps", "1"]));
    assert!(output.contains("does not look at `label`"), "{output}");
}
