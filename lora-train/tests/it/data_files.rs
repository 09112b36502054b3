//! Several files of training data, their shares of an epoch, and records that are held out of them.

use crate::common::{
    adapter, encoders, fail, json_of, lora, losses, metrics, model, succeed, texts, train,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of the fixture's texts.
fn lines() -> Vec<String> {
    let text = fs::read_to_string(texts()).unwrap();
    text.lines().map(String::from).collect()
}

fn write(dir: &Path, name: &str, lines: &[String]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

/// The same records as CSV.
fn csv(lines: &[String]) -> Vec<String> {
    let cell = |text: &Value| format!("\"{}\"", text.as_str().unwrap().replace('"', "\"\""));
    let row = |line: &String| {
        let object: Value = serde_json::from_str(line).unwrap();
        match object.get("text") {
            Some(text) => cell(text),
            None => format!(
                "{},{}",
                cell(&object["prompt"]),
                cell(&object["completion"])
            ),
        }
    };
    let header = if lines[0].contains("\"text\"") {
        "text"
    } else {
        "prompt,completion"
    };
    let rows = lines.iter().map(row);
    std::iter::once(header.to_string()).chain(rows).collect()
}

fn run(data: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = train(data, output);
    command.args(["--rank", "2", "--batch-size", "3", "--seed", "5"]);
    command.args(more);
    command
}

fn with_share(path: &Path, share: &str) -> String {
    format!("{}:{share}", path.display())
}

#[test]
fn files_of_several_formats_are_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let all = lines();
    let (first, second) = all.split_at(7);
    let one = write(dir.path(), "one.jsonl", first);
    let two = write(dir.path(), "two.csv", &csv(second));
    let whole = dir.path().join("whole");
    let options = ["--epochs", "1"];
    succeed(&mut run(&texts(), &whole, &options));
    let divided = dir.path().join("divided");
    let mut command = run(&one, &divided, &options);
    let printed = succeed(command.arg("--data").arg(&two));
    for part in ["one.jsonl: 7 examples", "two.csv: "] {
        assert!(printed.contains(part), "{printed}");
    }
    assert!(losses(&whole).len() > 2);
    assert_eq!(losses(&whole), losses(&divided));
    assert_eq!(
        adapter(&whole.join("adapter")),
        adapter(&divided.join("adapter"))
    );
    let recipe = fs::read_to_string(divided.join("recipe.toml")).unwrap();
    assert!(recipe.contains("one.jsonl\", "), "{recipe}");
    // The recipe repeats the run.
    let again = dir.path().join("again");
    let mut command = lora(["train"]);
    command.arg(divided.join("recipe.toml"));
    succeed(command.arg("--output").arg(&again));
    assert_eq!(losses(&whole), losses(&again));
    let card = fs::read_to_string(divided.join("adapter/README.md")).unwrap();
    assert!(card.contains("| data | one.jsonl, two.csv |"), "{card}");
}

#[test]
fn shares_make_the_epoch_and_a_resumed_run_has_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let all = lines();
    let one = write(dir.path(), "one.jsonl", &all[..6]);
    let two = write(dir.path(), "two.jsonl", &all[6..]);
    let shares = [with_share(&one, "3"), with_share(&two, "1")];
    let mixed = |output: &Path, more: &[&str]| {
        let mut command = run(Path::new(&shares[0]), output, more);
        command.args(["--data", &shares[1], "--save-steps", "2"]);
        command
    };
    let whole = dir.path().join("whole");
    let printed = succeed(&mut mixed(&whole, &["--epochs", "3"]));
    let rest = all.len() - 6;
    let line = format!(
        "mix       8 examples in an epoch: 6 of 6 of {}, 2 of {rest} of",
        one.display()
    );
    assert!(printed.contains(&line), "{printed}");
    // Eight examples are three batches.
    assert_eq!(losses(&whole).len(), 9);
    let cut = dir.path().join("cut");
    succeed(&mut mixed(&cut, &["--epochs", "3", "--schedule", "linear"]));
    let last = fs::read_dir(cut.join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let last = last.max().unwrap();
    fs::remove_dir_all(last).unwrap();
    succeed(&mut mixed(
        &cut,
        &["--epochs", "3", "--schedule", "linear", "--resume"],
    ));
    assert_eq!(
        adapter(&whole.join("adapter")),
        adapter(&cut.join("adapter"))
    );
    // Other shares are another run, and another file is named.
    let mut other = run(
        Path::new(&with_share(&one, "2")),
        &cut,
        &["--epochs", "3", "--resume"],
    );
    other.args([
        "--save-steps",
        "2",
        "--schedule",
        "linear",
        "--data",
        &shares[1],
    ]);
    fail(&mut other, 1, &["other options", "data_shares"]);
    let mut changed = all[6..].to_vec();
    changed[0] = changed[1].clone();
    write(dir.path(), "two.jsonl", &changed);
    let mut other = mixed(&cut, &["--epochs", "3", "--schedule", "linear", "--resume"]);
    fail(
        &mut other,
        1,
        &["with other data", "the texts", "in two.jsonl"],
    );
}

#[test]
fn files_that_do_not_go_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let chat = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let chats = write(dir.path(), "chats.jsonl", &[chat.into()]);
    let bad = write(
        dir.path(),
        "bad.jsonl",
        &[lines()[0].clone(), "{\"tex\": 1}".into()],
    );
    let with = |first: &str, second: &str| {
        let mut command = run(Path::new(first), &output, &["--max-steps", "1"]);
        command.args(["--data", second]);
        command
    };
    let [chats, bad] = [chats, bad].map(|path| path.display().to_string());
    let good = texts().display().to_string();
    fail(
        &mut with(&good, &chats),
        2,
        &[
            "two kinds of files",
            "chats.jsonl has conversations (`messages`)",
            "has texts",
        ],
    );
    fail(
        &mut with(&good, &bad),
        1,
        &["bad.jsonl, line 2", "neither a key"],
    );
    fail(
        &mut with(&format!("{good}:0.5"), &bad),
        2,
        &["bad.jsonl has none; give each a share"],
    );
    fail(&mut with(&format!("{good}:0"), &bad), 2, &["the share 0"]);
    fail(&mut with(&good, "none.jsonl:0.x"), 1, &["none.jsonl:0.x"]);
    assert!(!output.exists());
}

/// Files that have one class each, in two formats: as one file.
#[test]
fn classes_of_several_files_are_united() {
    let dir = tempfile::tempdir().unwrap();
    let base = encoders::encoder("bert", dir.path());
    let texts = [
        "a fine pub",
        "a bad one",
        "so cheap and good",
        "never again",
    ];
    let row = |at: usize| {
        let label = ["good", "bad"][at % 2];
        format!("{{\"text\": \"{}\", \"label\": \"{label}\"}}", texts[at])
    };
    let good = write(dir.path(), "good.jsonl", &[row(0), row(2)]);
    let bad = ["text,label", "a bad one,bad", "never again,bad"].map(String::from);
    let bad = write(dir.path(), "bad.csv", &bad);
    let all = write(dir.path(), "all.jsonl", &[row(0), row(2), row(1), row(3)]);
    let options = ["--max-steps", "3", "--batch-size", "2", "--rank", "2"];
    let one = dir.path().join("one");
    succeed(encoders::train(&base, &all, &one).args(options));
    let two = dir.path().join("two");
    let mut command = encoders::train(&base, &good, &two);
    let printed = succeed(command.args(options).arg("--data").arg(&bad));
    for line in [
        "good.jsonl: 2 records",
        "bad.csv: 2 records",
        "labels    bad, good",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    assert_eq!(losses(&one), losses(&two));
    assert_eq!(adapter(&one.join("adapter")), adapter(&two.join("adapter")));
    // With shares, and a record held out.
    let shares = [with_share(&good, "0.5"), with_share(&bad, "0.5")];
    let mixed = dir.path().join("mixed");
    let mut command = encoders::train(&base, Path::new(&shares[0]), &mixed);
    command
        .args(options)
        .args(["--data", &shares[1], "--eval-split", "1"]);
    let printed = succeed(&mut command);
    for line in [
        "mix       2 examples in an epoch: 1 of ",
        "eval data 1 of 4 records",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    // A class of the second file that the head does not have is named with its file.
    let odd = ["text,label", "a bad one,odd"].map(String::from);
    let odd = write(dir.path(), "odd.csv", &odd);
    let mut command = encoders::train(&base, &good, &dir.path().join("odd"));
    command.args(["--labels", "bad,good", "--data"]).arg(&odd);
    fail(&mut command, 1, &["odd.csv, line 2", "unknown label `odd`"]);
}

/// Lines of the training data that a run trains on.
fn trained_lines(data: &Path, more: &[&str]) -> Vec<usize> {
    let mut command = lora([
        "preview",
        "--device",
        "flex",
        "--json",
        "--examples",
        "1000",
    ]);
    command.arg("--model").arg(model()).arg("--data").arg(data);
    let preview = json_of(&succeed(command.args(more)));
    let shown = preview["shown"].as_array().unwrap().iter();
    let line = |example: &Value| {
        let origin = example["origin"].as_str().unwrap();
        origin.rsplit(':').next().unwrap().parse().unwrap()
    };
    shown.map(line).collect()
}

#[test]
fn held_out_records_are_evaluated_on_and_never_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let all = lines();
    let split = ["--eval-split", "0.2"];
    let trained = trained_lines(&texts(), &split);
    let held = all.len().div_ceil(5);
    assert_eq!(trained.len(), all.len() - held);
    let is_trained = |at: &usize| trained.contains(&(at + 1));
    let (kept, others): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(is_trained);
    let of =
        |places: &[usize]| -> Vec<String> { places.iter().map(|&at| all[at].clone()).collect() };
    let kept = write(dir.path(), "kept.jsonl", &of(&kept));
    let others = write(dir.path(), "others.jsonl", &of(&others));

    let options = ["--epochs", "2", "--keep-best"];
    let apart = dir.path().join("apart");
    let mut command = run(&kept, &apart, &options);
    succeed(command.arg("--eval-data").arg(&others));
    let together = dir.path().join("together");
    let mut command = run(&texts(), &together, &options);
    let printed = succeed(command.args(split));
    let line = format!(
        "eval data {held} of {} records, held out by the seed 42",
        all.len()
    );
    assert!(printed.contains(&line), "{printed}");
    let values = |output: &Path| {
        let lines = metrics(output).into_iter();
        let values = lines.map(|line| [line["loss"].to_string(), line["eval"].to_string()]);
        values.collect::<Vec<_>>()
    };
    assert_eq!(values(&apart), values(&together));
    assert_eq!(
        adapter(&apart.join("adapter")),
        adapter(&together.join("adapter"))
    );
    let record = fs::read_to_string(together.join("metrics.jsonl")).unwrap();
    let before: Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
    let expected = serde_json::json!({"held_out": held, "records": all.len(), "seed": 42});
    assert_eq!(before["eval_split"], expected);

    // Another seed of the run has the same split, and another of the split another.
    let with = |more: &[&str]| trained_lines(&texts(), &[&split[..], more].concat());
    assert_eq!(with(&["--seed", "9"]), trained);
    assert_ne!(with(&["--eval-split-seed", "9"]), trained);
    // Few records to train on come from those that are not held out.
    let few = with(&["--max-examples", "3"]);
    assert!(few.len() == 3 && few.iter().all(|line| trained.contains(line)));
    let mut resumed = run(&texts(), &together, &options);
    resumed.args(["--eval-split", "0.3", "--resume"]);
    fail(&mut resumed, 1, &["other options", "eval_split"]);
    for (more, words) in [
        (&["--eval-split", "1.5"][..], "a share in (0, 1)"),
        (&["--eval-split", "1000"], "none is left to train on"),
        (&["--eval-split-seed", "1"], "which is not given"),
    ] {
        let mut command = run(&texts(), &dir.path().join("refused"), &options[..2]);
        fail(command.args(more), 2, &[words]);
    }
    let mut command = run(&texts(), &dir.path().join("refused"), &[]);
    command.args(split).arg("--eval-data").arg(texts());
    fail(&mut command, 2, &["cannot be used with"]);
}
