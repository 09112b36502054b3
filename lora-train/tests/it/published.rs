//! Adapters in the layout of the files that the authors of LoRA publish, evaluated as they are; `fixtures/loralib/generate.py` computed with
//! them in PyTorch.

use crate::common::encoders::{encoder, eval, learn, lines, numbers, outcome, predict, stdout};
use crate::common::{eval_texts, fail, fixtures, lora, model, succeed, texts};
use serde_json::Value;
use std::path::PathBuf;

/// Losses are sums of some hundred products in f32.
const TOLERANCE: f64 = 1e-4;

fn file(name: &str) -> PathBuf {
    fixtures().join("loralib").join(name)
}

fn expected(key: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(file("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(expected["alpha"], 24);
    numbers(&expected[key])
}

#[track_caller]
fn assert_all_near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= TOLERANCE,
            "{found}, expected {expected}"
        );
    }
}

#[test]
fn gpt2_s_fused_projection_is_evaluated_from_the_authors_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let losses = |more: &[&str]| {
        let mut command = eval_texts(&model(), &out);
        succeed(command.arg("--adapter").arg(file("gpt2.pt")).args(more));
        let lines = lines(&out);
        lines
            .iter()
            .map(|line| line["loss"].as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let right = expected("gpt2_losses");
    assert_all_near(&losses(&["--alpha", "24", "--slices", "q,v"]), &right);
    // The values that the file lacks count.
    let other = losses(&["--alpha", "12", "--slices", "q,v"]);
    assert!((other[0] - right[0]).abs() > 100.0 * TOLERANCE);
    let mut alone = eval_texts(&model(), &out);
    succeed(&mut alone);
    assert!((lines(&out)[0]["loss"].as_f64().unwrap() - right[0]).abs() > 100.0 * TOLERANCE);
}

#[test]
fn what_the_file_lacks_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let run = |more: &[&str]| {
        let mut command = eval_texts(&model(), &out);
        command.arg("--adapter").arg(file("gpt2.pt")).args(more);
        command
    };
    fail(&mut run(&[]), 2, &["`alpha`", "loralib"]);
    fail(
        &mut run(&["--alpha", "24"]),
        1,
        &["gpt2.pt", "2 adapted parts", "q,v"],
    );
    let mut none = eval_texts(&model(), &out);
    fail(
        none.args(["--alpha", "24"]),
        2,
        &["`alpha`", "loralib files only"],
    );
}

#[test]
fn roberta_is_evaluated_from_the_authors_file_with_its_classifier() {
    let dir = tempfile::tempdir().unwrap();
    let roberta = encoder("roberta", dir.path());
    let out = dir.path().join("out.jsonl");
    let mut command = eval(&roberta, &fixtures().join("glue/glue/mnli/dev_matched.tsv"));
    command.args(["--task", "glue/mnli", "--alpha", "24"]);
    command.arg("--adapter").arg(file("roberta.bin"));
    let output = succeed(command.arg("--predictions").arg(&out));
    assert!(output.contains("accuracy"), "{output}");
    let found: Vec<f64> = lines(&out)
        .iter()
        .flat_map(|line| numbers(&line["logits"]))
        .collect();
    assert_all_near(&found, &expected("roberta_logits"));
}

#[test]
fn the_authors_files_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let (merged, out) = (dir.path().join("merged"), dir.path().join("out.jsonl"));
    let run = |more: &[&str]| {
        let mut command = lora(["merge", "--device", "flex", "--verify", "--model"]);
        command.arg(model()).arg("--output").arg(&merged);
        command.arg("--adapter").arg(file("gpt2.pt")).args(more);
        command
    };
    fail(&mut run(&[]), 2, &["`alpha`", "loralib"]);
    succeed(&mut run(&["--alpha", "24", "--slices", "q,v"]));
    succeed(&mut eval_texts(&merged, &out));
    let found: Vec<f64> = lines(&out)
        .iter()
        .map(|line| line["loss"].as_f64().unwrap())
        .collect();
    assert_all_near(&found, &expected("gpt2_losses"));
}

/// `alpha` was called missing although it was given.
#[test]
fn a_run_starts_from_the_authors_files() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let known = ["--alpha", "24", "--slices", "q,v"];
    let mut command = eval_texts(&model(), &out);
    command.arg("--adapter").arg(file("gpt2.pt")).args(known);
    let printed = crate::common::encoders::printed(&succeed(&mut command));
    let loss = printed.iter().find(|(name, _)| name == "loss").unwrap().1;
    let run = |name: &str, adapter: &PathBuf, more: &[&str]| {
        let mut command = learn(&model(), &texts(), &dir.path().join(name));
        command.arg("--eval-data").arg(texts());
        command.args(["--max-length", "48", "--max-steps", "2"]);
        command.arg("--adapter").arg(adapter).args(more);
        command
    };
    let gpt2 = file("gpt2.pt");
    let found = outcome(&mut run("gpt2", &gpt2, &known));
    let before = found["before"]["loss"].as_f64().unwrap();
    assert!((before - loss).abs() < 5.1e-5, "{before}, not {loss}");
    // The run is repeated from its recipe, and its adapter is PEFT's.
    let recipe = dir.path().join("gpt2/recipe.toml");
    let mut again = lora(["train", "--json", "--overwrite"]);
    let again = outcome(again.arg(&recipe));
    assert_eq!(again["after"], found["after"]);
    let trained = dir.path().join("gpt2/adapter");
    outcome(&mut run("more", &trained, &[]));
    fail(&mut run("none", &gpt2, &[]), 2, &["`alpha`", "loralib"]);
    fail(
        &mut run("no", &trained, &["--slices", "q,v"]),
        2,
        &["`slices`", "loralib files only"],
    );
    fail(
        &mut run(
            "rank",
            &gpt2,
            &["--alpha", "24", "--slices", "q,v", "--rank", "5"],
        ),
        2,
        &["gpt2.pt", "other modules, ranks or scales"],
    );

    // MRPC from the authors' MNLI, with a new head of two classes.
    let roberta = encoder("roberta", dir.path());
    let glue = fixtures().join("glue/glue/mrpc");
    let mut command = learn(&roberta, &glue.join("train.tsv"), &dir.path().join("mrpc"));
    command.args(["--task", "glue/mrpc", "--fresh-head", "--max-steps", "1"]);
    command.args(["--targets", "query,value", "--rank", "3", "--alpha", "24"]);
    command.arg("--adapter").arg(file("roberta.bin"));
    outcome(command.arg("--eval-data").arg(glue.join("dev.tsv")));
}

/// One alpha cannot be that of two files.
#[test]
fn two_of_the_authors_files_are_refused() {
    let path = file("gpt2.pt").display().to_string();
    let known = ["--alpha", "24", "--slices", "q,v"];
    let words = ["`alpha`", "one loralib file", "lora convert"];
    let mut generate = lora(["generate", "--device", "flex", "--prompt", "The", "--model"]);
    generate.arg(model()).args(known);
    for name in ["a", "b"] {
        generate.args(["--adapter", &format!("{name}={path}")]);
    }
    fail(&mut generate, 2, &words);
    let mut analyze = lora(["analyze", "--adapter", &path, "--against", &path, "--model"]);
    fail(analyze.arg(model()).args(known), 2, &words);
}

/// The same file, in the other commands that take adapters.
#[test]
fn the_authors_files_are_read_by_generate_and_predict() {
    let dir = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let mut command = lora([
            "generate",
            "--device",
            "flex",
            "--prompt",
            "Aromi, coffee shop:",
        ]);
        command
            .args(["--max-new-tokens", "8", "--model"])
            .arg(model())
            .args(more);
        stdout(&mut command)
    };
    let path = file("gpt2.pt").display().to_string();
    let adapted = run(&["--adapter", &path, "--alpha", "24", "--slices", "q,v"]);
    assert_ne!(adapted, run(&[]));
    let named = format!("paper={path}");
    let options = [
        "--alpha",
        "24",
        "--slices",
        "q,v",
        "--use",
        "paper",
        "--adapter",
        &named,
    ];
    assert_eq!(run(&options), adapted);

    let roberta = encoder("roberta", dir.path());
    let texts = fixtures().join("glue/glue/mnli/test_matched.tsv");
    let mut command = predict(&roberta);
    command
        .args(["--task", "glue/mnli", "--alpha", "24", "--data"])
        .arg(texts);
    // The file names no classes.
    let found = stdout(command.arg("--adapter").arg(file("roberta.bin")));
    assert!(found.starts_with("LABEL_"), "{found}");
    let labels = ["--labels", "entailment,neutral,contradiction"];
    assert!(!stdout(command.args(labels)).contains("LABEL_"));
}
