//! Real processes of `mpirun`, with the feature `mpi`: [`ranks`](super::ranks) has the cases, and these are those of processes.

use crate::common::{adapter, losses, model, text, texts};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `mpirun` with this number of processes of the program, however few cores there are.
fn lora_at(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none"]);
    // Containers have the superuser alone.
    command.arg("--allow-run-as-root");
    command.args(["-n", &ranks.to_string()]);
    command.arg(env!("CARGO_BIN_EXE_lora"));
    command.env("RAYON_NUM_THREADS", "1");
    command
}

/// Adds `train` with dropout, accumulation with a short group at the end of each epoch, evaluations and checkpoints.
fn train(mut command: Command, output: &Path, steps: usize) -> Command {
    command.arg("train").arg("--model").arg(model());
    command
        .arg("--data")
        .arg(texts())
        .arg("--eval-data")
        .arg(texts());
    command.arg("--output").arg(output);
    command.args(["--device", "flex", "--max-length", "48", "--seed", "11"]);
    command.args(["--rank", "3", "--dropout", "0.2", "--lr", "1e-2"]);
    command.args(["--batch-size", "3", "--grad-accumulation", "4"]);
    command.args([
        "--save-steps",
        "3",
        "--eval-steps",
        "4",
        "--keep-checkpoints",
        "9",
    ]);
    command.args(["--generate-prompts", "3", "--max-new-tokens", "4"]);
    command.args(["--max-steps", &steps.to_string()]);
    command
}

fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// Runs a command that is to fail within some seconds.
fn fail(mut command: Command) -> Output {
    let start = Instant::now();
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{}", text(&output));
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{}",
        text(&output)
    );
    output
}

/// Names, shapes and values of the trained tensors. The order of the file's metadata is another in each run.
fn trained(output: &Path) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    adapter(&output.join("adapter"))
}

#[test]
fn one_to_four_processes_have_the_losses_and_the_adapter_of_one_without_mpirun() {
    let dir = tempfile::tempdir().unwrap();
    let alone = dir.path().join("alone");
    succeed(train(crate::common::lora::<&str>([]), &alone, 7));
    for ranks in 1..=4 {
        let output = dir.path().join(format!("ranks{ranks}"));
        let printed = succeed(train(lora_at(ranks), &output, 7));
        assert_eq!(losses(&output), losses(&alone), "{ranks} ranks");
        assert!(trained(&output) == trained(&alone), "{ranks} ranks");
        // One rank prints.
        assert_eq!(printed.matches("saved ").count(), {
            let saved = printed.lines().filter(|line| line.contains("saved "));
            let mut saved: Vec<&str> = saved.collect();
            saved.sort_unstable();
            saved.dedup();
            saved.len()
        });
        assert_eq!(printed.contains("ranks     "), ranks > 1, "{printed}");
        assert_eq!(
            printed.contains("MiB sent by each rank"),
            ranks > 1,
            "{printed}"
        );
    }
    // Evaluation and generation, in the order of the data.
    let evaluated = |ranks: usize| {
        let predictions = dir.path().join(format!("predictions{ranks}.jsonl"));
        let mut command = lora_at(ranks);
        command.arg("eval").arg("--model").arg(model());
        command.arg("--adapter").arg(alone.join("adapter"));
        command.arg("--data").arg(texts());
        command.arg("--predictions").arg(&predictions);
        command.args([
            "--device",
            "flex",
            "--max-length",
            "48",
            "--batch-size",
            "3",
        ]);
        command.args(["--generate", "--max-new-tokens", "4"]);
        let printed = succeed(command);
        let loss = printed.lines().filter(|line| line.starts_with("loss"));
        (
            loss.map(String::from).collect::<Vec<_>>(),
            fs::read(predictions).unwrap(),
        )
    };
    let one = evaluated(1);
    assert_eq!(one.0.len(), 1);
    assert!(evaluated(3) == one);

    let generated = |ranks: usize| {
        let mut command = lora_at(ranks);
        command
            .args(["--quiet", "generate", "--model"])
            .arg(model());
        command.args(["--device", "flex", "--max-new-tokens", "4"]);
        command.args(["--batch-size", "1", "--json"]);
        for prompt in ["The king", "A small", "In the year", "Many of them"] {
            command.args(["--prompt", prompt]);
        }
        command.stderr(Stdio::inherit());
        let output = command.output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let one = generated(1);
    assert_eq!(one.lines().count(), 4, "{one}");
    assert_eq!(generated(3), one);
}

/// Starts a run and waits until it has done some steps.
fn started(mut command: Command, output: &Path, steps: usize) -> Child {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let metrics = output.join("metrics.jsonl");
    let done = || {
        let text = fs::read_to_string(&metrics).unwrap_or_default();
        text.matches("grad_norm").count()
    };
    while done() < steps {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && start.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

/// Process ids of the ranks below `mpirun`, in their order.
fn ranks_of(launcher: &Child) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(status) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // After the name in parentheses: state, then parent.
        let parent = status
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1));
        if parent != Some(&launcher.id().to_string()) {
            continue;
        }
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let mut variables = environment.split('\0');
        let rank = variables.find_map(|line| line.strip_prefix("OMPI_COMM_WORLD_RANK="));
        if let Some(rank) = rank {
            found.push((rank.parse::<usize>().unwrap(), id));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, id)| id).collect()
}

fn signal(name: &str, process: u32) {
    let sent = Command::new("kill")
        .arg(name)
        .arg(process.to_string())
        .status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_killed_rank_ends_all_and_a_signal_to_one_saves_once_and_the_run_goes_on_with_other_ranks() {
    const STEPS: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    succeed(train(crate::common::lora::<&str>([]), &whole, STEPS));

    let child = started(train(lora_at(3), &cut, STEPS), &cut, 10);
    let ranks = ranks_of(&child);
    assert_eq!(ranks.len(), 3);
    signal("-KILL", ranks[1]);
    let start = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{}",
        text(&output)
    );

    let mut resumed = train(lora_at(2), &cut, STEPS);
    resumed.arg("--resume");
    let child = started(resumed, &cut, losses(&cut).len() + 10);
    signal("-INT", ranks_of(&child)[1]);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let printed = text(&output);
    assert!(
        printed.contains("interrupted: continue with --resume"),
        "{printed}"
    );
    let done = losses(&cut).len();
    assert!(done < STEPS);
    assert!(cut.join(format!("checkpoints/step-{done:08}")).exists());

    let mut last = train(crate::common::lora::<&str>([]), &cut, STEPS);
    last.arg("--resume");
    succeed(last);
    assert_eq!(losses(&cut), losses(&whole));
    assert!(trained(&cut) == trained(&whole));
}

/// A program with arguments, for one of several ranks.
fn add_rank(command: &mut Command, ranks: usize) {
    command.args([":", "-n", &ranks.to_string()]);
    command.arg(env!("CARGO_BIN_EXE_lora"));
}

#[test]
fn an_error_at_one_rank_ends_all_with_its_message() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    // Data that only the last rank lacks.
    let mut command = train(lora_at(2), &output, 7);
    add_rank(&mut command, 1);
    let mut command = train(command, &output, 7);
    command.args(["--new-tokens", "gone.txt"]);
    let printed = text(&fail(command));
    assert!(
        printed.contains("error at rank 2 of 3") && printed.contains("gone.txt"),
        "{printed}"
    );

    // Another option at the last rank: the first one names it.
    let mut command = train(lora_at(1), &output, 7);
    add_rank(&mut command, 2);
    let mut command = train(command, &output, 7);
    command.args(["--label-smoothing", "0.1"]);
    let printed = text(&fail(command));
    for part in [
        "error: rank 1 of 3 has another set of options",
        "label_smoothing",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    // Nothing but the lock of the rank that was ended.
    for entry in fs::read_dir(&output).unwrap() {
        assert_eq!(entry.unwrap().file_name(), ".lock");
    }

    // An error that all have is told once, with its exit code.
    let mut command = train(lora_at(3), &output, 7);
    command.args(["--label-smoothing", "1.5"]);
    let failed = fail(command);
    assert_eq!(failed.status.code(), Some(2));
    assert_eq!(text(&failed).matches("option `label_smoothing`").count(), 1);
}
