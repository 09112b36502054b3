//! Results that are written as they come, continued after an interruption, and settings that come with a model.

use crate::common::encoders::{data, encoder, learn, predict, stdout};
use crate::common::{fail, lora, model, succeed};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn generate(model: &Path, args: &[&str]) -> Command {
    let mut command = lora(["generate", "--device", "flex", "--model"]);
    command.arg(model).args(args);
    command
}

/// A copy of the fixture model with these settings for text generation.
fn with_settings(dir: &Path, settings: &Value) -> PathBuf {
    let copy = dir.join("model");
    std::fs::create_dir_all(&copy).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(model().join(name), copy.join(name)).unwrap();
    }
    write(&copy, "generation_config.json", &settings.to_string());
    copy
}

/// Cuts a file of results at some lengths, as a kill does, and asserts that `resume` writes the same bytes again.
fn assert_continues(path: &Path, resume: &mut dyn FnMut()) {
    let whole = std::fs::read(path).unwrap();
    for part in [0, 1, 3, 5, 7, 8] {
        std::fs::write(path, &whole[..whole.len() * part / 8]).unwrap();
        resume();
        assert_eq!(std::fs::read(path).unwrap(), whole, "{part} of 8");
    }
}

#[test]
fn settings_of_the_model_are_defaults_and_flags_win() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--prompt",
        "The Eagle",
        "--prompt",
        "near the river",
        "--json",
    ];
    let new = ["--max-new-tokens", "12"];
    let plain = stdout(generate(&model(), &args).args(new));
    let settings = json!({"eos_token_id": 299, "repetition_penalty": 6.0, "max_new_tokens": 9});
    let changed = with_settings(dir.path(), &settings);
    let output = succeed(&mut generate(&changed, &args));
    let line = "generation generation_config.json: max_new_tokens 9, repetition_penalty 6.0";
    assert!(output.contains(line), "{output}");
    let found = stdout(&mut generate(&changed, &args));
    assert_ne!(found, plain);
    assert!(found.contains(r#""tokens":9"#), "{found}");
    for flags in [
        &["--repetition-penalty", "1"][..],
        &["--ignore-generation-config"],
    ] {
        let mut command = generate(&changed, &args);
        assert_eq!(stdout(command.args(new).args(flags)), plain);
    }
    let refused = with_settings(dir.path(), &json!({"stop_strings": ["."]}));
    fail(
        &mut generate(&refused, &args),
        1,
        &["stop_strings", "ignore_generation_config"],
    );
    let sampled = with_settings(dir.path(), &json!({"do_sample": true, "temperature": 2.0}));
    let output = succeed(generate(&sampled, &args).args(new));
    assert!(
        output.contains("do_sample true, temperature 2.0, top_k 50"),
        "{output}"
    );
    let mut command = generate(&sampled, &args);
    assert_eq!(stdout(command.args(new).arg("--greedy")), plain);
}

#[test]
fn texts_are_written_one_by_one_and_continued_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = write(
        dir.path(),
        "prompts.txt",
        "a\nThe Eagle is\nb c\nnear\nfood\n",
    );
    let out = dir.path().join("out.jsonl");
    let run = |more: &[&str]| {
        let mut command = generate(&model(), &["--batch-size", "2", "--max-new-tokens", "6"]);
        command.args(["--temperature", "1.5", "--output"]).arg(&out);
        command.arg("--prompts").arg(&prompts).args(more);
        command
    };
    succeed(&mut run(&[]));
    let text = std::fs::read_to_string(&out).unwrap();
    assert_eq!(text.lines().count(), 5);
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["prompt"], first["tokens"].is_u64()),
        (&json!("a"), true)
    );
    assert_continues(&out, &mut || drop(succeed(&mut run(&["--resume"]))));
    fail(&mut run(&[]), 1, &["out.jsonl", "already exists"]);
    fail(
        &mut run(&["--resume", "--seed", "7"]),
        1,
        &["out.jsonl", "line 1", "other options"],
    );
    succeed(&mut run(&["--overwrite", "--seed", "7"]));
}

#[test]
fn prompts_are_checked_before_the_first_text() {
    let dir = tempfile::tempdir().unwrap();
    let long = "river ".repeat(60);
    let prompts = write(dir.path(), "prompts.txt", &format!("a\nb\n\n{long}\nc\n"));
    let out = dir.path().join("out.jsonl");
    let mut command = generate(&model(), &["--batch-size", "1", "--max-new-tokens", "8"]);
    command
        .arg("--output")
        .arg(&out)
        .arg("--prompts")
        .arg(&prompts);
    fail(&mut command, 1, &["prompts.txt, line 4", "positions"]);
    assert!(!out.exists());
}

#[test]
fn predictions_are_written_one_by_one_and_continued_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder("roberta", dir.path());
    let (pairs, run) = (data("pairs.jsonl"), dir.path().join("run"));
    succeed(learn(&model, &pairs, &run).args(["--max-steps", "2"]));
    let out = dir.path().join("out.jsonl");
    let to_predict = |more: &[&str]| {
        let mut command = predict(&model);
        command.arg("--adapter").arg(run.join("adapter"));
        command.args(["--batch-size", "1", "--data"]).arg(&pairs);
        command.args(more);
        command
    };
    let to_file = |more: &[&str]| {
        let mut command = to_predict(more);
        command.arg("--output").arg(&out);
        command
    };
    succeed(&mut to_file(&[]));
    let printed = stdout(&mut to_predict(&["--json"]));
    let text = std::fs::read_to_string(&out).unwrap();
    assert_eq!(text.lines().count(), printed.lines().count());
    for (line, printed) in text.lines().zip(printed.lines()) {
        let (line, printed): (Value, Value) = (
            serde_json::from_str(line).unwrap(),
            serde_json::from_str(printed).unwrap(),
        );
        assert_eq!(line["prediction"], printed["prediction"]);
        assert_eq!(line["scores"], printed["scores"]);
        assert_eq!(line["input"].as_array().unwrap().len(), 2);
    }
    assert_continues(&out, &mut || drop(succeed(&mut to_file(&["--resume"]))));
    fail(&mut to_file(&[]), 1, &["already exists"]);
}
