//! Files that an earlier commit wrote are read, and its runs resumed: `tests/fixtures/commit_2140182`.

use crate::common::{fixtures, lora, metrics, model, succeed, train};
use std::path::{Path, PathBuf};

/// Steps of the run that wrote the files.
const STEPS: usize = 60;

/// The step of its checkpoint.
const CHECKPOINT: usize = 21;

/// Sums of products differ in the last bits between processors with and without AVX-512; over 39 steps that grows.
const TOLERANCE: f64 = 1e-3;

fn earlier() -> PathBuf {
    fixtures().join("commit_2140182")
}

fn data() -> PathBuf {
    fixtures().join("train20/train.jsonl")
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn assert_near(what: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= TOLERANCE * expected.abs(),
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn a_checkpoint_of_an_earlier_commit_is_resumed_with_its_losses() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    copy_dir(&earlier().join("checkpoints"), &output.join("checkpoints"));
    let mut command = train(&data(), &output);
    command.args(["--rank", "3", "--alpha", "5", "--dropout", "0.2"]);
    command.args(["--lr", "1e-2", "--schedule", "cosine"]);
    command.args(["--batch-size", "3", "--grad-accumulation", "2"]);
    command.args(["--save-steps", "7", "--seed", "11", "--eval-steps", "10"]);
    command.args(["--max-steps", &STEPS.to_string()]);
    command.arg("--eval-data").arg(data()).arg("--resume");
    let printed = succeed(&mut command);
    assert!(printed.contains("resuming at step 22"), "{printed}");
    // Its state has no digest of the data.
    assert!(printed.contains("data      not compared"), "{printed}");

    let steps = |dir: &Path| -> Vec<(u64, f64, f64)> {
        metrics(dir)
            .iter()
            .filter_map(|line| {
                let number = |key: &str| line[key].as_f64();
                Some((
                    line["step"].as_u64()?,
                    number("loss")?,
                    number("grad_norm")?,
                ))
            })
            .collect()
    };
    let (resumed, whole) = (steps(&output), steps(&earlier()));
    assert_eq!(resumed.len(), STEPS - CHECKPOINT);
    for (found, expected) in resumed.iter().zip(&whole[CHECKPOINT..]) {
        assert_eq!(found.0, expected.0);
        assert_near(&format!("loss of step {}", found.0), found.1, expected.1);
        assert_near(&format!("norm of step {}", found.0), found.2, expected.2);
    }
}

#[test]
fn an_adapter_of_an_earlier_commit_is_evaluated_as_it_was() {
    let before = metrics(&earlier());
    let before = before.last().unwrap()["eval"]["loss"].as_f64().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let scores = dir.path().join("scores.jsonl");
    let mut command = lora(["eval", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(model());
    command.arg("--adapter").arg(earlier().join("adapter"));
    command.arg("--data").arg(data());
    command.arg("--predictions").arg(&scores);
    let printed = succeed(&mut command);
    let loss = printed
        .lines()
        .find_map(|line| line.trim().strip_prefix("loss")?.trim().parse::<f64>().ok())
        .unwrap_or_else(|| panic!("no loss in: {printed}"));
    assert_near("loss", loss, before);
}
