//! Fixtures and commands of the program's tests.

pub mod encoders;
pub mod steps;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::tensors::Tensors;

pub use test_support::process::{fail, succeed, text};

pub fn model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../lora-models/tests/fixtures/gpt2_tied")
}

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Returns the tolerance on a device for results that are within `of_f32` of each other, relative to the largest of them, where products
/// are computed in f32: on NVIDIA GPUs their operands are rounded to 10 bits (TF32), and a result adds up a few such products.
pub fn tolerance(device: &burn::tensor::Device, of_f32: f64) -> f64 {
    of_f32 + 4.0 * lora_core::ops::product_rounding(device)
}

/// Returns the command of the program with these arguments.
pub fn lora<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lora"));
    command.args(args);
    command
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

/// Texts that the fixture model was trained on in Python.
pub fn texts() -> PathBuf {
    fixtures().join("train20/train.jsonl")
}

/// `lora eval` on these texts, with the loss of each in `predictions`.
pub fn eval_texts(model: &Path, predictions: &Path) -> Command {
    let mut command = lora(["eval", "--device", "flex", "--max-length", "48"]);
    command.arg("--overwrite").arg("--model").arg(model);
    command.arg("--data").arg(texts());
    command.arg("--predictions").arg(predictions);
    command
}

/// The last object in what a command printed.
pub fn json_of(output: &str) -> Value {
    let line = output.lines().rev().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("no object in {output}"))).unwrap()
}

/// Objects of steps and evaluations in `metrics.jsonl`.
pub fn metrics(output: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .filter(|line: &Value| line.get("loss").or(line.get("eval")).is_some())
        .collect()
}

/// The losses of the steps, exactly as they were written.
pub fn losses(output: &Path) -> Vec<String> {
    metrics(output)
        .iter()
        .filter_map(|line| Some(line.get("loss")?.to_string()))
        .collect()
}

/// Returns names, shapes and values of an adapter's tensors, in the order of the names.
pub fn adapter(dir: &Path) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    tensors(&dir.join("adapter_model.safetensors"))
}

/// Returns names, shapes and values of a file's tensors, in the order of the names.
pub fn tensors(path: &Path) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let tensors = Tensors::open(path);
    let read = |name: String| {
        let (values, shape) = tensors.floats(&name);
        (name, shape, values)
    };
    tensors.names().into_iter().map(read).collect()
}
