//! Standard output and standard error that are closed or full.

use crate::common::{encoders, fixtures, lora, model, succeed, texts, train};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Writes to a pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Writes to a disk without space.
#[cfg(target_os = "linux")]
fn full() -> Stdio {
    OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

fn run(mut command: Command, stdout: Stdio) -> (Output, String) {
    let child = command.stdout(stdout).stderr(Stdio::piped()).spawn();
    let output = child.unwrap().wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!errors.contains("panicked"), "{command:?}\n{errors}");
    (output, errors)
}

/// Every command that prints a result, with what it needs in `dir`.
fn commands(dir: &Path) -> Vec<Command> {
    let run = dir.join("run");
    let mut training = train(&texts(), &run);
    training.args(["--rank", "2", "--max-steps", "2", "--overwrite"]);
    succeed(&mut training);
    let adapter = run.join("adapter");
    let classifier = encoders::encoder("bert", dir);
    let trained = dir.join("classifier");
    let mut command = encoders::learn(&classifier, &encoders::data("texts.jsonl"), &trained);
    succeed(command.args(["--max-steps", "1"]));

    let with_model = |name: &str, more: &[&str]| {
        let mut command = lora([name, "--device", "flex"]);
        command.arg("--model").arg(model()).args(more);
        command
    };
    let mut evaluation = with_model("eval", &[]);
    evaluation.arg("--data").arg(texts());
    let mut preview = lora(["preview"]);
    preview
        .arg("--model")
        .arg(model())
        .arg("--data")
        .arg(texts());
    let mut prediction = lora(["predict", "--device", "flex", "--text", "a word"]);
    prediction.arg("--model").arg(&classifier);
    prediction.arg("--adapter").arg(trained.join("adapter"));
    let mut merge = with_model("merge", &["--overwrite"]);
    merge
        .arg("--adapter")
        .arg(&adapter)
        .arg("--output")
        .arg(dir.join("merged"));
    let mut combine = lora(["combine", "--overwrite"]);
    combine
        .arg(&adapter)
        .arg(&adapter)
        .arg("--output")
        .arg(dir.join("combined"));
    let mut convert = lora(["convert", "--overwrite", "--to", "mlx"]);
    convert
        .arg(&adapter)
        .arg("--output")
        .arg(dir.join("converted"));
    let mut inspect = lora(["inspect"]);
    inspect.arg(&adapter);
    let mut diff = lora(["diff"]);
    diff.arg(&adapter).arg(&adapter);
    let mut bench = lora(["bench", "load", "--device", "flex"]);
    bench.arg("--model").arg(model());
    let mut commands = vec![
        training,
        evaluation,
        preview,
        prediction,
        merge,
        combine,
        convert,
        inspect,
        diff,
        bench,
        with_model("generate", &["--prompt", "a", "--max-new-tokens", "1"]),
        lora(["cache"]),
        lora(["env", "--device", "flex"]),
        lora(["completions", "bash"]),
        lora(["man"]),
        lora(["--help"]),
        lora(["--version"]),
        lora(["train", "--help"]),
    ];
    for json in ["inspect", "diff"] {
        let mut command = lora([json, "--json"]);
        command.arg(&adapter);
        if json == "diff" {
            command.arg(&adapter);
        }
        commands.push(command);
    }
    commands
}

#[test]
fn a_reader_that_has_gone_ends_every_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    for command in commands(dir.path()) {
        let shown = format!("{command:?}");
        let (output, errors) = run(command, closed());
        assert_eq!(output.status.code(), Some(0), "{shown}\n{errors}");
        assert!(!errors.contains("error"), "{shown}\n{errors}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_of_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for command in commands(dir.path()) {
        let is_diff = command.get_args().next().is_some_and(|name| name == "diff");
        let shown = format!("{command:?}");
        let (output, errors) = run(command, full());
        let code = if is_diff { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{shown}\n{errors}");
        let message = "error: standard output: No space left on device";
        assert!(errors.contains(message), "{shown}\n{errors}");
    }
}

/// The work is done, and its exit code says so; the messages are lost.
#[cfg(target_os = "linux")]
#[test]
fn a_run_goes_on_where_standard_error_is_closed_or_full() {
    let dir = tempfile::tempdir().unwrap();
    for (name, stderr) in [("closed", closed()), ("full", full())] {
        let output: PathBuf = dir.path().join(name);
        let mut command = train(&texts(), &output);
        command.args(["--rank", "2", "--max-steps", "2"]);
        let status = command.stdout(Stdio::null()).stderr(stderr).status();
        assert!(status.unwrap().success());
        assert!(output.join("adapter/adapter_model.safetensors").exists());
    }
}

/// `diff` is asked for its exit code more often than for its text.
#[test]
fn differences_are_told_by_the_exit_code_though_nobody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("run");
    succeed(train(&texts(), &other).args(["--rank", "2", "--max-steps", "1"]));
    let mut diff = lora(["diff"]);
    diff.arg(other.join("adapter"));
    diff.arg(fixtures().join("commit_2140182/adapter"));
    let (output, _) = run(diff, closed());
    assert_eq!(output.status.code(), Some(1));
}
