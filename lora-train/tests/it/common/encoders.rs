//! Tiny encoders with their tokenizers, and what a user does with them.

use super::{fixtures, lora, metrics, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The names of the encoders in `fixtures/classify/models`, one a family.
pub const FAMILIES: [&str; 5] = ["bert", "roberta", "xlmr", "deberta", "v2"];

/// The files of a family's tokenizer, and which of the fixtures they are.
fn tokenizer(family: &str) -> &'static [(&'static str, &'static str)] {
    match family {
        "bert" => &[("vocab.txt", "bert.txt")],
        "roberta" => &[
            ("vocab.json", "roberta_vocab.json"),
            ("merges.txt", "merges.txt"),
        ],
        "xlmr" => &[("sentencepiece.bpe.model", "xlmr_small.model")],
        "deberta" => &[
            ("vocab.json", "deberta_vocab.json"),
            ("merges.txt", "merges.txt"),
        ],
        "v2" => &[("spm.model", "deberta_v2.model")],
        other => panic!("no family {other}"),
    }
}

pub fn classify(name: &str) -> PathBuf {
    fixtures().join("classify").join(name)
}

/// Data by the name of its file.
pub fn data(name: &str) -> PathBuf {
    classify("data").join(name)
}

/// A copy of a model's directory in `dir`, with the tokenizer of its family.
pub fn with_tokenizer(family: &str, weights: &Path, dir: &Path) -> PathBuf {
    let model = dir.join(format!("{family}-model"));
    std::fs::create_dir_all(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(weights.join(name), model.join(name)).unwrap();
    }
    let files = fixtures().join("../../../lora-models/tests/fixtures/tokenizer_families/files");
    for (name, source) in tokenizer(family) {
        std::fs::copy(files.join(source), model.join(name)).unwrap();
    }
    model
}

/// The encoder of a family, without a head.
pub fn encoder(family: &str, dir: &Path) -> PathBuf {
    with_tokenizer(family, &classify("models").join(family), dir)
}

/// `lora train`.
pub fn train(model: &Path, data: &Path, output: &Path) -> Command {
    let mut command = lora(["train", "--device", "flex", "--json"]);
    command.arg("--model").arg(model);
    command.arg("--data").arg(data);
    command.arg("--output").arg(output);
    command
}

/// Returns `lora train` with a learning rate for small models, and without checkpoints: to sync these to the disk takes longer
/// than all the rest.
pub fn learn(model: &Path, data: &Path, output: &Path) -> Command {
    let mut command = train(model, data, output);
    command.args(["--lr", "1e-2", "--save-steps", "0"]);
    command
}

/// Runs `lora train --json` to its end and returns its outcome.
pub fn outcome(command: &mut Command) -> Value {
    let output = succeed(command);
    let line = output.lines().rev().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no outcome in {output}"))).unwrap()
}

/// `lora eval`.
pub fn eval(model: &Path, data: &Path) -> Command {
    let mut command = lora(["eval", "--device", "flex"]);
    command.arg("--model").arg(model).arg("--data").arg(data);
    command
}

/// `lora predict`.
pub fn predict(model: &Path) -> Command {
    let mut command = lora(["predict", "--device", "flex"]);
    command.arg("--model").arg(model);
    command
}

/// The metrics that `lora eval` prints, by name.
pub fn printed(output: &str) -> Vec<(String, f64)> {
    let pairs = output.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_string(), value.trim().parse().ok()?))
    });
    pairs.collect()
}

/// Objects of a predictions file.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The numbers of a JSON list, or of a list of lists.
pub fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap()],
    }
}

/// The steps and metrics of a run's evaluations.
pub fn evaluations(output: &Path) -> Vec<(u64, Value)> {
    let lines = metrics(output);
    let evals = lines.iter();
    evals
        .filter_map(|line| Some((line["step"].as_u64()?, line.get("eval")?.clone())))
        .collect()
}

/// Asserts that `lora eval` prints the final metrics of the run, to four decimals.
pub fn same_metrics(output: &str, outcome: &Value) {
    let after = outcome["after"].as_object().unwrap();
    let printed = printed(output);
    for (name, value) in after {
        let found = printed.iter().find(|(found, _)| found == name);
        let (_, found) = found.unwrap_or_else(|| panic!("no {name} in {output}"));
        assert!(
            (found - value.as_f64().unwrap()).abs() <= 5.1e-5,
            "{name}: {found}, not {value}"
        );
    }
    assert!(after.len() >= 2, "{after:?}");
}

/// Runs a command and returns its standard output.
pub fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", super::text(&output));
    String::from_utf8(output.stdout).unwrap()
}
