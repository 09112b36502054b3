//! Runs that were interrupted and resumed equal those that were not.

use crate::common::{adapter, fail, fixtures, losses, metrics, succeed, text, train};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use test_support::tensors::json;

fn data() -> PathBuf {
    fixtures().join("train20/train.jsonl")
}

/// Options that choose the parameters to train.
const ADAPTER: &[&str] = &["--rank", "3", "--alpha", "5", "--dropout", "0.2"];
const ALL_WEIGHTS: &[&str] = &["--full"];

/// Shuffling, accumulation, dropout and evaluations: everything with a state.
fn run(what: &[&str], output: &Path, steps: usize) -> Command {
    saving(what, output, steps, 7)
}

/// A run with another interval of checkpoints.
fn saving(what: &[&str], output: &Path, steps: usize, save: usize) -> Command {
    let mut command = train(&data(), output);
    command.args(what);
    command.args(["--lr", "1e-2", "--schedule", "cosine"]);
    if !what.contains(&"--batch-tokens") {
        command.args(["--batch-size", "3"]);
    }
    command.args(["--grad-accumulation", "2"]);
    command.args(["--save-steps", &save.to_string()]);
    command.args(["--seed", "11", "--eval-steps", "10"]);
    command.args(["--max-steps", &steps.to_string()]);
    command.arg("--eval-data").arg(data());
    command
}

/// Starts a run and waits until it has done so many steps.
fn start_and_wait(mut command: Command, output: &Path, steps: usize) -> Child {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let file = output.join("metrics.jsonl");
    let count = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines()
            .filter(|line| line.contains("grad_norm"))
            .count()
    };
    let start = Instant::now();
    while count() < steps {
        assert!(start.elapsed() < Duration::from_secs(120), "no progress");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

/// Enough that a run takes seconds, so that it can be caught in the middle.
const STEPS: usize = 600;

fn killed_run_is_as_if_it_had_not_been(
    what: &[&str],
    steps: usize,
) -> (PathBuf, PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    succeed(&mut run(what, &whole, steps));

    let cut = dir.path().join("cut");
    let mut child = start_and_wait(run(what, &cut, steps), &cut, 40);
    child.kill().unwrap();
    child.wait().unwrap();
    let done = losses(&cut).len();
    assert!((40..steps).contains(&done), "killed after {done} steps");
    // The second session is cut off too, wherever it is then.
    let mut again = run(what, &cut, steps)
        .arg("--resume")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    again.kill().unwrap();
    again.wait().unwrap();
    let output = succeed(run(what, &cut, steps).arg("--resume"));
    assert!(output.contains("resuming at step"), "{output}");

    assert_eq!(losses(&cut), losses(&whole));
    let evaluations = |dir: &Path| -> Vec<String> {
        let lines = metrics(dir);
        lines
            .iter()
            .filter_map(|line| Some(line.get("eval")?.to_string()))
            .collect()
    };
    assert_eq!(evaluations(&cut), evaluations(&whole));
    (whole, cut, dir)
}

#[test]
fn a_killed_run_goes_on_with_identical_losses_and_ends_with_the_identical_adapter() {
    let (whole, cut, _dir) = killed_run_is_as_if_it_had_not_been(ADAPTER, STEPS);
    assert_eq!(
        adapter(&cut.join("adapter")),
        adapter(&whole.join("adapter"))
    );
}

/// The checkpoint holds what the factors became and what they started at; the run goes on from both.
#[test]
fn a_killed_run_that_started_at_the_weights_does_too() {
    let what = &[
        "--rank",
        "2",
        "--init",
        "pissa",
        "--dora",
        "--dropout",
        "0.2",
    ];
    let (whole, cut, _dir) = killed_run_is_as_if_it_had_not_been(what, 300);
    assert_eq!(
        adapter(&cut.join("adapter")),
        adapter(&whole.join("adapter"))
    );
}

/// The weights are packed again from the same floats.
#[test]
fn a_killed_run_on_a_quantized_base_does_too() {
    let what = &["--rank", "3", "--dropout", "0.2", "--quantize", "nf4"];
    let (whole, cut, _dir) = killed_run_is_as_if_it_had_not_been(what, 300);
    assert_eq!(
        adapter(&cut.join("adapter")),
        adapter(&whole.join("adapter"))
    );
}

/// The batches of an epoch, whose number is its own, are made again.
#[test]
fn a_killed_run_of_packed_texts_does_too() {
    let what = &[
        "--rank",
        "3",
        "--dropout",
        "0.2",
        "--packing",
        "--batch-tokens",
        "100",
    ];
    let (whole, cut, _dir) = killed_run_is_as_if_it_had_not_been(what, 300);
    assert_eq!(
        adapter(&cut.join("adapter")),
        adapter(&whole.join("adapter"))
    );
}

#[test]
fn a_killed_run_of_all_weights_does_too() {
    let (whole, cut, _dir) = killed_run_is_as_if_it_had_not_been(ALL_WEIGHTS, 200);
    let weights = |dir: &Path| std::fs::read(dir.join("model/model.safetensors")).unwrap();
    assert_eq!(weights(&cut), weights(&whole));
}

#[test]
fn a_run_is_resumed_with_the_options_that_it_had() {
    let dir = tempfile::tempdir().unwrap();
    succeed(&mut run(ADAPTER, dir.path(), 7));
    // The learning rate depends on the number of steps: another number is another run.
    let mut other = run(ADAPTER, dir.path(), 20);
    fail(other.arg("--resume"), 1, &["other options", "max_steps"]);
}

/// Presses Ctrl-C.
#[cfg(unix)]
fn interrupt(child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
}

#[cfg(unix)]
#[test]
fn control_c_saves_and_exits_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    succeed(&mut run(ADAPTER, &whole, STEPS));
    let cut = dir.path().join("cut");
    let child = start_and_wait(run(ADAPTER, &cut, STEPS), &cut, 20);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let message = text(&output);
    assert_eq!(output.status.code(), Some(0), "{message}");
    assert!(message.contains("--resume"), "{message}");
    let done = losses(&cut).len();
    assert!(done < STEPS);
    let last = cut.join(format!("checkpoints/step-{done:08}"));
    assert!(
        last.join("state.json").exists(),
        "the step of the interruption is saved"
    );
    assert!(cut.join("adapter/adapter_model.safetensors").exists());
    succeed(run(ADAPTER, &cut, STEPS).arg("--resume"));
    assert_eq!(losses(&cut), losses(&whole));
}

/// One step of this run takes minutes, so that the first Ctrl-C cannot end it.
#[cfg(unix)]
#[test]
fn a_second_control_c_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let line = "{\"text\": \"name[Aromi], eatType[pub], food[English], area[city centre], near[Burger King]\"}\n";
    let data = dir.path().join("long.jsonl");
    std::fs::write(&data, line.repeat(20_000)).unwrap();
    let out = dir.path().join("run");
    let mut command = train(&data, &out);
    command.args(["--batch-size", "1", "--grad-accumulation", "20000"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while !out.join("metrics.jsonl").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "no start");
        std::thread::sleep(Duration::from_millis(2));
    }
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        child.try_wait().unwrap().is_none(),
        "the first one waits for the step"
    );
    interrupt(&child);
    let start = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    let message = text(&output);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(
        message.contains("press Ctrl-C again to exit at once"),
        "{message}"
    );
    assert_eq!(losses(&out).len(), 0);
    assert!(!out.join("checkpoints").exists());
}

#[test]
fn resuming_needs_a_checkpoint_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    fail(
        run(ADAPTER, dir.path(), 5).arg("--resume"),
        1,
        &["none to resume from"],
    );
    succeed(&mut run(ADAPTER, dir.path(), 20));
    let (weights, before) = (adapter(&dir.path().join("adapter")), losses(dir.path()));
    let optimizer = |step: usize| {
        let checkpoints = dir.path().join("checkpoints");
        checkpoints.join(format!("step-{step:08}/optimizer.bpk"))
    };
    let halve = |file: &Path| {
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    assert!(!optimizer(7).exists(), "two checkpoints are kept");
    // The run goes back to the checkpoint before, with other intervals from there on, and ends the same.
    halve(&optimizer(20));
    let output = succeed(saving(ADAPTER, dir.path(), 20, 3).arg("--resume"));
    for words in [
        "optimizer.bpk is not what was written",
        "from the checkpoint before, at step 14",
    ] {
        assert!(output.contains(words), "{output}");
    }
    assert_eq!(adapter(&dir.path().join("adapter")), weights);
    assert_eq!(losses(dir.path()), before);
    assert!(!optimizer(14).exists(), "two checkpoints are kept");
    for step in [18, 20] {
        halve(&optimizer(step));
    }
    fail(
        run(ADAPTER, dir.path(), 20).arg("--resume"),
        1,
        &["step-00000020", "optimizer.bpk"],
    );
}

/// The seconds of a run are those of all its sessions up to the checkpoints it went on from.
#[test]
fn a_resumed_run_adds_its_seconds_to_those_of_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    succeed(&mut run(ADAPTER, dir.path(), 20));
    let state = |step: usize| {
        let checkpoints = dir.path().join("checkpoints");
        checkpoints.join(format!("step-{step:08}/state.json"))
    };
    std::fs::remove_dir_all(state(20).parent().unwrap()).unwrap();
    // Longer than the second session.
    let (seconds, saving) = (5000.0, 1000.0);
    let mut before = json(&state(14));
    before["seconds"] = seconds.into();
    before["saving_seconds"] = saving.into();
    std::fs::write(state(14), before.to_string()).unwrap();

    let start = Instant::now();
    succeed(run(ADAPTER, dir.path(), 20).arg("--resume"));
    let session = start.elapsed().as_secs_f64();
    let is_added = |found: &Value, before: f64| {
        let found = found.as_f64().unwrap();
        assert!(
            found > before && found < before + session,
            "{found} is not {before} and a part of {session}"
        );
    };
    let lines = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    is_added(&last["phases"]["training"], seconds);
    is_added(&last["phases"]["checkpoints"], saving);
    // The session wrote one checkpoint, whose own time is no part of its state.
    let after = json(&state(20));
    is_added(&after["seconds"], seconds);
    assert_eq!(after["saving_seconds"], saving);
}

#[test]
fn a_resumed_run_does_not_need_the_adapter_that_it_started_from() {
    const STEPS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    succeed(&mut run(ADAPTER, &first, 5));
    let start = first.join("adapter");
    let what = ["--adapter", start.to_str().unwrap()];
    let mut child = start_and_wait(run(&what, &second, STEPS), &second, 20);
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(&first).unwrap();
    let output = succeed(run(&what, &second, STEPS).arg("--resume"));
    assert!(output.contains("resuming at step"), "{output}");
}
