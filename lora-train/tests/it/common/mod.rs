//! What the tests of the program share.
#![allow(dead_code)] // Each test file uses a part.

pub mod encoders;
pub mod steps;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub fn model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../lora-models/tests/fixtures/gpt2_tied")
}

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The program with these arguments; paths as well as words.
pub fn lora<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lora"));
    command.args(args);
    command
}

pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs to the end and insists on success.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", text(&output));
    text(&output)
}

/// Runs and insists on this exit code and these words in the message.
pub fn fail(command: &mut Command, code: i32, words: &[&str]) {
    let output = command.output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// `lora train` on the fixture model, with an adapter on `c_attn`.
pub fn train(data: &Path, output: &Path) -> Command {
    let mut command = lora(["train"]);
    command.arg("--model").arg(model());
    command.arg("--data").arg(data);
    command.arg("--output").arg(output);
    command.args(["--device", "flex", "--max-length", "48"]);
    command
}

/// Objects of `metrics.jsonl`.
pub fn metrics(output: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The losses of the steps, exactly as they were written.
pub fn losses(output: &Path) -> Vec<String> {
    metrics(output)
        .iter()
        .filter_map(|line| Some(line.get("loss")?.to_string()))
        .collect()
}

/// Tensors of an adapter by name.
pub fn adapter(dir: &Path) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    tensors(&dir.join("adapter_model.safetensors"))
}

/// Tensors of a file by name.
pub fn tensors(path: &Path) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = tensors
        .iter()
        .map(|(name, view)| {
            let values = view.data().chunks_exact(4);
            let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            (name.to_string(), view.shape().to_vec(), values.collect())
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}
