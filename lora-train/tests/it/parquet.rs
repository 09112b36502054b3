//! Runs on Parquet files equal those on the same rows as JSON Lines.

use crate::common::{adapter, encoders, fixtures, losses, succeed, train};
use std::path::{Path, PathBuf};
use std::process::Command;

fn data(name: &str) -> PathBuf {
    fixtures().join("parquet").join(name)
}

fn assert_same(name: &str, run: impl Fn(&Path, &Path) -> Command) {
    let dir = tempfile::tempdir().unwrap();
    let outputs = ["parquet", "jsonl"].map(|extension| {
        let output = dir.path().join(extension);
        let data = data(&format!("{name}.{extension}"));
        let mut command = run(&data, &output);
        succeed(command.args(["--rank", "2", "--batch-size", "2", "--max-steps", "3"]));
        output
    });
    let [parquet, jsonl] = outputs;
    assert_eq!(losses(&parquet).len(), 3);
    assert_eq!(losses(&parquet), losses(&jsonl));
    assert_eq!(
        adapter(&parquet.join("adapter")),
        adapter(&jsonl.join("adapter"))
    );
}

#[test]
fn prompts_and_completions() {
    assert_same("pairs", |data, output| {
        let mut command = train(data, output);
        command.args(["--eval-split", "1", "--data-cache", "disk"]);
        command
    });
}

#[test]
fn classes_and_words() {
    let dir = tempfile::tempdir().unwrap();
    let base = encoders::encoder("bert", dir.path());
    assert_same("classes", |data, output| {
        encoders::train(&base, data, output)
    });
    assert_same("words", |data, output| {
        let mut command = encoders::train(&base, data, output);
        command.args(["--task", "token-classification"]);
        command
    });
}
