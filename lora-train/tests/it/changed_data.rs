//! Runs that are resumed with other data than they had.

use crate::common::{encoders, fail, metrics, succeed, texts, train};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// First steps of a run, and a run that goes on.
struct Run {
    dir: tempfile::TempDir,
    command: fn(&Path, &Path) -> Command,
}

impl Run {
    fn new(command: fn(&Path, &Path) -> Command, data: &str) -> Self {
        let run = Self {
            dir: tempfile::tempdir().unwrap(),
            command,
        };
        succeed(&mut run.with(data));
        run
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The command on a file with this content, whose name is always another.
    fn with(&self, data: &str) -> Command {
        let count = std::fs::read_dir(self.dir.path()).unwrap().count();
        let path = self.dir.path().join(format!("data{count}.jsonl"));
        std::fs::write(&path, data).unwrap();
        (self.command)(&path, &self.output())
    }

    /// Other data is refused with these words, and taken by those who mean it.
    fn assert_refused(&self, data: &str, words: &[&str]) {
        fail(
            self.with(data).arg("--resume"),
            1,
            &["with other data", "--allow-changed-data"],
        );
        fail(self.with(data).arg("--resume"), 1, words);
        let printed = succeed(self.with(data).args(["--resume", "--allow-changed-data"]));
        assert!(
            printed.contains("data      changed since the checkpoint: "),
            "{printed}"
        );
        for word in words {
            assert!(printed.contains(word), "{printed}");
        }
    }
}

fn language_model(data: &Path, output: &Path) -> Command {
    let mut command = train(data, output);
    command.args([
        "--rank",
        "2",
        "--batch-size",
        "3",
        "--save-steps",
        "2",
        "--max-steps",
        "4",
    ]);
    command
}

fn classifier(data: &Path, output: &Path) -> Command {
    let dir = output.parent().unwrap();
    let mut command = encoders::train(&encoders::encoder("bert", dir), data, output);
    command.args(["--rank", "2", "--save-steps", "1", "--max-steps", "2"]);
    command
}

fn lines() -> Vec<String> {
    let text = std::fs::read_to_string(texts()).unwrap();
    text.lines().map(String::from).collect()
}

fn joined(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

#[test]
fn a_copy_of_the_data_at_another_place_is_the_same_data() {
    let data = joined(&lines());
    let run = Run::new(language_model, &data);
    let printed = succeed(run.with(&data).arg("--resume"));
    assert!(!printed.contains("changed"), "{printed}");
}

#[test]
fn another_text_is_refused() {
    let run = Run::new(language_model, &joined(&lines()));
    let mut other = lines();
    other[5] = other[6].clone();
    run.assert_refused(&joined(&other), &["the texts (", "examples, "]);
}

#[test]
fn another_order_is_refused() {
    let run = Run::new(language_model, &joined(&lines()));
    let mut other = lines();
    other.reverse();
    run.assert_refused(&joined(&other), &["the order of the examples"]);
}

/// The position in an epoch of ten batches lies beyond one of two: the next epoch begins.
#[test]
fn fewer_examples_go_on_with_the_next_epoch() {
    let all = lines();
    let run = Run::new(language_model, &joined(&all));
    // As if the run had ended after its second step, at the sixth batch.
    let checkpoints = run.output().join("checkpoints");
    let step = checkpoints.join("step-00000002");
    let _ = std::fs::remove_dir_all(&step);
    std::fs::rename(checkpoints.join("step-00000004"), &step).unwrap();
    let file = step.join("state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    state["step"] = 2.into();
    state["position"]["batch"] = 5.into();
    std::fs::write(&file, state.to_string()).unwrap();

    let few = joined(&all[..4]);
    let words = ["the texts (it had: 28 examples, ", "now: 4 examples, "];
    fail(run.with(&few).arg("--resume"), 1, &words);
    succeed(run.with(&few).args(["--resume", "--allow-changed-data"]));
    let epochs = metrics(&run.output());
    let epochs: Vec<f64> = epochs
        .iter()
        .map(|line| line["epoch"].as_f64().unwrap())
        .collect();
    assert_eq!(epochs[2..], [1.5, 2.0]);
}

const LABELLED: [(&str, &str); 4] = [
    ("the film is great", "good"),
    ("the film is terrible", "bad"),
    ("a good hotel", "good"),
    ("a poor hotel", "bad"),
];

fn labelled(rows: &[(&str, &str)]) -> String {
    let line = |(text, label): &(&str, &str)| {
        serde_json::json!({"text": text, "label": label}).to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

#[test]
fn other_labels_are_refused() {
    let run = Run::new(classifier, &labelled(&LABELLED));
    let mut other = LABELLED;
    (other[0].1, other[1].1) = (other[1].1, other[0].1);
    let other = labelled(&other);
    fail(
        run.with(&other).arg("--resume"),
        1,
        &["Changed: the labels. Resume"],
    );
    let printed = succeed(run.with(&other).args(["--resume", "--allow-changed-data"]));
    assert!(
        printed.contains("changed since the checkpoint: the labels;"),
        "{printed}"
    );
}

#[test]
fn other_classes_are_refused_with_both_lists() {
    let run = Run::new(classifier, &labelled(&LABELLED));
    let other = LABELLED.map(|(text, label)| (text, if label == "good" { "fine" } else { label }));
    let words = [
        "the classes (it had: bad, good; now: bad, fine)",
        "the labels",
    ];
    fail(run.with(&labelled(&other)).arg("--resume"), 1, &words);
}

#[test]
fn evaluation_data_counts_where_it_decides_which_weights_are_kept() {
    let keeping = |data: &Path, output: &Path| {
        let mut command = language_model(data, output);
        command.args(["--keep-best", "--eval-data"]).arg(data);
        command
    };
    let run = Run::new(keeping, &joined(&lines()));
    let mut other = lines();
    other.reverse();
    let words = ["the order of the examples; in the evaluation data, the order"];
    fail(run.with(&joined(&other)).arg("--resume"), 1, &words);
    // Values on other data decide nothing: no evaluation of this run is the best one any more.
    let printed = succeed(run.with(&joined(&lines())).arg("--resume"));
    assert!(printed.contains("keeping the best evaluation"), "{printed}");
    let mut command = run.with(&joined(&other));
    let printed = succeed(command.args(["--resume", "--allow-changed-data"]));
    assert!(
        !printed.contains("keeping the best evaluation"),
        "{printed}"
    );
}

#[test]
fn changed_data_is_allowed_for_resumed_runs_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = train(&texts(), dir.path());
    fail(command.arg("--allow-changed-data"), 2, &["--resume"]);
}
