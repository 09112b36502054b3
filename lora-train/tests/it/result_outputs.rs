//! Files of results that a failing command leaves as they were, and outputs that are refused before any work.

use crate::common::encoders::{classify, data, encoder, eval, learn, predict};
use crate::common::{fail, fixtures, lora, model, succeed, texts};
use std::path::{Path, PathBuf};
use std::process::Command;

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// `lora predict` with a named adapter, on texts of which one names another.
fn named(dir: &Path) -> impl Fn(&[&str]) -> Command {
    let bert = encoder("bert", dir);
    let run = dir.join("run");
    succeed(learn(&bert, &data("texts.jsonl"), &run).args(["--max-steps", "1"]));
    let lines =
        "{\"text\": \"a pub\", \"adapter\": \"one\"}\n{\"text\": \"b\", \"adapter\": \"two\"}\n";
    let texts = write(dir, "texts.jsonl", lines);
    let (adapter, out) = (
        format!("one={}", run.join("adapter").display()),
        dir.join("out.jsonl"),
    );
    move |more| {
        let mut command = predict(&bert);
        command.args(["--adapter", &adapter, "--batch-size", "1", "--data"]);
        command.arg(&texts).arg("--output").arg(&out).args(more);
        command
    }
}

/// The file was opened, and emptied, before the adapters of the texts were known.
#[test]
fn a_wrong_name_of_an_adapter_leaves_old_results_and_no_empty_file() {
    let dir = tempfile::tempdir().unwrap();
    let command = named(dir.path());
    let out = dir.path().join("out.jsonl");
    fail(&mut command(&[]), 1, &["line 2", "`two`"]);
    assert!(!out.exists());
    std::fs::write(&out, "old results\n").unwrap();
    for more in [&["--overwrite"][..], &["--overwrite", "--use", "three"]] {
        fail(&mut command(more), 1, &[]);
        assert_eq!(std::fs::read(&out).unwrap(), b"old results\n");
    }
}

#[test]
fn results_that_replace_old_ones_are_continued_as_any() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = write(dir.path(), "prompts.txt", "a\nb c\nThe Eagle\n");
    let out = write(dir.path(), "out.jsonl", "old results\n");
    let run = |more: &[&str]| {
        let mut command = lora(["generate", "--device", "flex", "--batch-size", "1"]);
        command
            .args(["--max-new-tokens", "4", "--model"])
            .arg(model());
        command.arg("--prompts").arg(&prompts);
        command.arg("--output").arg(&out).args(more);
        command
    };
    // Not results of an interrupted run.
    fail(&mut run(&["--resume"]), 1, &["out.jsonl, line 1"]);
    write(dir.path(), "out.jsonl", "old results");
    fail(&mut run(&["--resume"]), 1, &["out.jsonl, line 1"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"old results");
    succeed(&mut run(&["--overwrite"]));
    let whole = std::fs::read_to_string(&out).unwrap();
    assert_eq!(whole.lines().count(), 3);
    let first = whole.find('\n').unwrap() + 1;
    for length in [first, first + 9] {
        std::fs::write(&out, &whole[..length]).unwrap();
        succeed(&mut run(&["--resume"]));
        assert_eq!(std::fs::read_to_string(&out).unwrap(), whole);
    }
    let names = std::fs::read_dir(dir.path()).unwrap();
    assert_eq!(names.count(), 2, "a temporary file is left");
}

#[test]
fn an_output_is_no_input() {
    let dir = tempfile::tempdir().unwrap();
    let bert = encoder("bert", dir.path());
    let copied = dir.path().join("copied.jsonl");
    std::fs::copy(data("texts.jsonl"), &copied).unwrap();
    let (config, link) = (bert.join("config.json"), dir.path().join("link.jsonl"));
    #[cfg(unix)]
    std::os::unix::fs::symlink(&copied, &link).unwrap();
    let before = (
        std::fs::read(&copied).unwrap(),
        std::fs::read(&config).unwrap(),
    );
    let words = ["which this run reads"];
    for output in [&copied, &config, &link] {
        for how in ["--overwrite", "--resume"] {
            for texts in ["--texts", "--data"] {
                let mut command = predict(&bert);
                command.arg(texts).arg(&copied).arg("--output").arg(output);
                fail(command.arg(how), 2, &words);
            }
            let mut command = lora(["generate", "--device", "flex", "--model"]);
            command.arg(&bert).arg("--prompts").arg(&copied);
            fail(command.arg("--output").arg(output).arg(how), 2, &words);
        }
        let mut command = eval(&bert, &copied);
        command.arg("--predictions").arg(output);
        fail(command.arg("--overwrite"), 2, &words);
    }
    let now = (
        std::fs::read(&copied).unwrap(),
        std::fs::read(&config).unwrap(),
    );
    assert_eq!(before, now);
}

#[test]
fn a_submission_is_checked_before_the_model_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let bert = encoder("bert", dir.path());
    std::fs::write(bert.join("model.safetensors"), "no weights").unwrap();
    let answers = dir.path().join("answers");
    std::fs::create_dir(&answers).unwrap();
    let test = fixtures().join("glue/glue/cola/test.tsv");
    let submit = |task: &str, data: &Path, more: &[&str]| {
        let mut command = predict(&bert);
        command.args(["--task", task, "--data"]).arg(data);
        command.arg("--submission").arg(&answers).args(more);
        command
    };
    let mut command = submit("classification", &data("texts.jsonl"), &[]);
    fail(&mut command, 2, &["submission", "GLUE"]);
    // Records that the server could not tell apart.
    let twice = std::fs::read_to_string(&test).unwrap();
    let line = twice.lines().nth(1).unwrap();
    let twice = write(dir.path(), "test.tsv", &format!("{twice}{line}\n"));
    let labels = ["--labels", "unacceptable,acceptable"];
    let mut command = submit("glue/cola", &twice, &labels);
    fail(&mut command, 2, &["two records have the id"]);
    write(&answers, "CoLA.tsv", "old answers");
    let mut command = submit("glue/cola", &test, &[]);
    fail(&mut command, 1, &["CoLA.tsv", "already exists"]);
    let data = write(
        &answers,
        "CoLA.tsv",
        &std::fs::read_to_string(&test).unwrap(),
    );
    let mut command = submit("glue/cola", &data, &["--overwrite"]);
    fail(&mut command, 2, &["submission", "which this run reads"]);
}

/// A head with one score took the first of two numbers, and halved the loss.
#[test]
fn labels_of_another_size_than_the_head_are_refused_with_both() {
    let dir = tempfile::tempdir().unwrap();
    let bert = encoder("bert", dir.path());
    let (one, two, run) = (
        data("scores.jsonl"),
        data("moved.jsonl"),
        dir.path().join("run"),
    );
    let words = ["moved.jsonl", "2 numbers", "one score"];
    let mut command = learn(&bert, &one, &run);
    command.args(["--task", "regression", "--max-steps", "1", "--eval-data"]);
    fail(command.arg(&two), 1, &words);
    let mut command = learn(&bert, &one, &run);
    succeed(command.args(["--task", "regression", "--max-steps", "1"]));
    for mut command in [eval(&bert, &two), {
        let mut command = predict(&bert);
        command.arg("--data").arg(&two);
        command
    }] {
        fail(command.arg("--adapter").arg(run.join("adapter")), 1, &words);
    }
    // And the reverse.
    let mut command = learn(&bert, &two, &dir.path().join("both"));
    succeed(command.args(["--task", "regression", "--max-steps", "1"]));
    let mut command = eval(&bert, &one);
    command
        .arg("--adapter")
        .arg(dir.path().join("both/adapter"));
    fail(
        &mut command,
        1,
        &["scores.jsonl", "1 numbers", "outputs are 2"],
    );
    // A single score has no name, in any command.
    let names = ["option `labels`", "one score"];
    let mut command = learn(&bert, &one, &dir.path().join("named"));
    fail(
        command.args(["--task", "regression", "--labels", "a"]),
        2,
        &names,
    );
    let mut command = predict(&bert);
    command.arg("--adapter").arg(run.join("adapter"));
    fail(command.args(["--text", "a", "--labels", "a"]), 2, &names);
    let mut command = learn(&bert, &two, &dir.path().join("named"));
    command.args(["--task", "regression", "--max-steps", "1"]);
    succeed(command.args(["--labels", "valence,arousal"]));
    let mut command = predict(&bert);
    command
        .arg("--adapter")
        .arg(dir.path().join("named/adapter"));
    let printed = succeed(command.args(["--text", "a pub", "--json"]));
    assert!(printed.contains("\"arousal\":"), "{printed}");
}

/// A head for scores was trained with the loss of classes.
#[test]
fn data_without_any_class_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bert = encoder("bert", dir.path());
    let lines = "{\"text\": \"a\", \"label\": []}\n{\"text\": \"b\", \"label\": []}\n";
    let empty = write(dir.path(), "empty.jsonl", lines);
    let task = ["--task", "multi-label-classification", "--max-steps", "1"];
    let mut command = learn(&bert, &empty, &dir.path().join("run"));
    let words = ["empty.jsonl", "no record has a class", "labels"];
    fail(command.args(task), 1, &words);
    succeed(command.args(["--labels", "joy,anger"]));
    assert!(classify("models").exists());
}

/// A cell of a table without text is not null.
#[test]
fn columns_of_labels_may_be_empty_to_predict() {
    let dir = tempfile::tempdir().unwrap();
    let bert = encoder("bert", dir.path());
    let full = write(dir.path(), "full.csv", "text,a,b\nx y,1,0\nz,0,1\n");
    let blank = write(dir.path(), "blank.csv", "text,a,b\nx y,,\nz, ,\n");
    for (task, run) in [
        ("multi-label-classification", "sets"),
        ("regression", "scores"),
    ] {
        let run = dir.path().join(run);
        let columns = ["--label-column", "a,b"];
        let mut command = learn(&bert, &full, &run);
        command.args(["--task", task, "--max-steps", "1"]);
        succeed(command.args(columns));
        let with = |mut command: Command| {
            command.arg("--adapter").arg(run.join("adapter"));
            command.args(columns);
            command
        };
        let mut command = with(predict(&bert));
        let printed = succeed(command.arg("--json").arg("--data").arg(&blank));
        assert_eq!(printed.matches("\"prediction\"").count(), 2, "{printed}");
        fail(&mut with(eval(&bert, &blank)), 1, &["line 2", "no label"]);
    }
}

#[test]
fn options_of_texts_have_no_effect_without_texts() {
    for option in ["--beams", "--max-new-tokens", "--seed"] {
        let mut command = lora(["eval", "--device", "flex", "--max-length", "48", "--model"]);
        command.arg(model()).arg("--data").arg(texts());
        fail(command.args([option, "3"]), 2, &["no effect", "`generate`"]);
    }
}
