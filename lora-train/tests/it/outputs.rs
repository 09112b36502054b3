//! Output directories: one run at a time, checks before weights are read, and runs that overwrite others.

use crate::common::{adapter, fail, lora, losses, metrics, model, succeed, text, texts, train};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Enough that a run takes seconds, so that it can be caught in the middle.
const STEPS: usize = 600;

fn long(output: &Path, seed: u32) -> Command {
    let mut command = run(output, STEPS, 20);
    command.args(["--seed", &seed.to_string()]);
    command
}

/// A run of so many steps, with checkpoints between them.
fn run(output: &Path, steps: usize, save: usize) -> Command {
    let (steps, save) = (steps.to_string(), save.to_string());
    let mut command = train(&texts(), output);
    command.args(["--rank", "3", "--batch-size", "3"]);
    command.args(["--max-steps", &steps, "--save-steps", &save]);
    command
}

/// Starts a run and waits until it has done so many steps.
fn started(mut command: Command, output: &Path, steps: usize) -> Child {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let start = Instant::now();
    let file = output.join("metrics.jsonl");
    let lines = || {
        std::fs::read_to_string(&file)
            .unwrap_or_default()
            .lines()
            .count()
    };
    while lines() < steps {
        assert!(start.elapsed() < Duration::from_secs(300), "no progress");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.unwrap()
}

fn steps(output: &Path) -> Vec<u64> {
    let lines = metrics(output);
    lines
        .iter()
        .filter_map(|line| line["step"].as_u64())
        .collect()
}

fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_second_run_is_told_who_writes_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let first = started(long(&out, 1), &out, 30);
    let holder = format!("is written by process {} on ", first.id());
    for more in [&[][..], &["--overwrite"], &["--resume"]] {
        let words = [
            holder.as_str(),
            ", since 2",
            " UTC",
            "choose another output",
        ];
        fail(long(&out, 2).args(more), 1, &words);
    }
    let first = first.wait_with_output().unwrap();
    assert!(first.status.success(), "{}", text(&first));
    let expected: Vec<u64> = (1..=STEPS as u64).collect();
    assert_eq!(steps(&out), expected);
    let names = ["adapter", "checkpoints", "metrics.jsonl", "recipe.toml"];
    assert_eq!(files(&out), names);
}

/// One of them is told that the output exists, or who writes.
#[test]
fn of_two_runs_at_once_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let start = |seed: &str| {
        let mut command = run(&out, 20, 5);
        command.args(["--seed", seed]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let runs = [start("1"), start("2")].map(|run| run.wait_with_output().unwrap());
    let won = runs.iter().filter(|run| run.status.success()).count();
    assert_eq!(won, 1, "{}\n{}", text(&runs[0]), text(&runs[1]));
    assert_eq!(steps(&out), (1..=20).collect::<Vec<u64>>());
}

#[test]
fn the_lock_of_a_killed_run_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut killed = started(long(&out, 1), &out, 30);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(out.join(".lock").exists());
    succeed(long(&out, 1).arg("--resume"));
    assert_eq!(steps(&out).len(), STEPS);
    assert!(!out.join(".lock").exists());
}

#[test]
fn a_run_that_ends_before_its_first_checkpoint_gives_back_what_it_was_to_overwrite() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let short = |rate: &str| {
        let mut command = run(&out, 8, 4);
        command.args(["--lr", rate]);
        command
    };
    succeed(&mut short("1e-3"));
    let (before, weights) = (losses(&out), adapter(&out.join("adapter")));
    // The loss is not finite in a later step.
    fail(short("1e30").arg("--overwrite"), 1, &["the loss at step"]);
    assert_eq!(losses(&out), before);
    assert_eq!(adapter(&out.join("adapter")), weights);
    succeed(short("1e-3").arg("--resume"));
    assert_eq!(adapter(&out.join("adapter")), weights);
    succeed(short("2e-3").arg("--overwrite"));
    assert_ne!(adapter(&out.join("adapter")), weights);
    let names = ["adapter", "checkpoints", "metrics.jsonl", "recipe.toml"];
    assert_eq!(files(&out), names);
}

/// Configuration and tokenizer of the fixture model, without weights: a command that reads these fails at them.
fn without_weights(dir: &Path) -> PathBuf {
    let copy = dir.join("base");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !name.contains("safetensors") {
            std::fs::copy(entry.path(), copy.join(name)).unwrap();
        }
    }
    copy
}

#[test]
fn data_options_and_output_are_checked_before_weights_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let base = without_weights(dir.path());
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let bad = write("bad.jsonl", "{\"text\": \"one\"}\n{\"txet\": \"two\"}\n");
    let file = write("file", "a file");
    let full = dir.path().join("full");
    std::fs::create_dir_all(full.join("adapter")).unwrap();
    let out = dir.path().join("out");
    let command = |data: &Path, output: &Path| {
        let mut command = lora(["train", "--device", "flex", "--rank", "2"]);
        command.arg("--model").arg(&base);
        command.arg("--data").arg(data).arg("--output").arg(output);
        command
    };
    let data = texts();
    fail(&mut command(&bad, &out), 1, &["bad.jsonl, line 2"]);
    fail(
        command(&data, &out).arg("--eval-data").arg(&bad),
        1,
        &["bad.jsonl, line 2"],
    );
    fail(
        command(&data, &out).args(["--targets", "q_proj"]),
        1,
        &["q_proj"],
    );
    fail(
        command(&data, &out).args(["--prefix", "4096"]),
        1,
        &["4096"],
    );
    fail(
        command(&data, &out).args(["--max-length", "4096"]),
        2,
        &["max_length"],
    );
    fail(
        command(&data, &out).args(["--max-steps", "0"]),
        2,
        &["max_steps"],
    );
    fail(&mut command(&data, &full), 1, &["already exists"]);
    fail(
        &mut command(&data, &file),
        2,
        &["is a file; give a directory"],
    );
    assert!(!out.exists(), "a run that never started leaves no output");
    // With nothing else to say, the missing weights are the error.
    fail(&mut command(&data, &out), 1, &["safetensors"]);

    let mut evaluation = lora(["eval", "--device", "flex"]);
    evaluation.arg("--model").arg(&base).arg("--data").arg(&bad);
    fail(&mut evaluation, 1, &["bad.jsonl, line 2"]);
    let predictions = dir.path().join("missing/scores.jsonl");
    let mut evaluation = lora(["eval", "--device", "flex"]);
    evaluation
        .arg("--model")
        .arg(&base)
        .arg("--data")
        .arg(&data);
    fail(
        evaluation.arg("--predictions").arg(predictions),
        1,
        &["missing"],
    );
    let mut merge = lora(["merge", "--device", "flex"]);
    merge.arg("--model").arg(&base).arg("--output").arg(&full);
    fail(&mut merge, 1, &["already exists"]);
}

#[cfg(unix)]
#[test]
fn an_output_that_is_a_link_to_nowhere_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
    let words = ["link to a directory that does not exist"];
    fail(&mut long(&link, 1), 2, &words);
}
