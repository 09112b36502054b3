//! Several adapters by name from the program: each record or prompt chooses its own.

use crate::common::{encoders, fail, fixtures, lora, model, succeed};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Sums in another order; losses of the order of 5.
const TOLERANCE: f64 = 1e-4;

fn tree() -> PathBuf {
    fixtures().join("../../../lora-models/tests/fixtures/named/gpt2_tied")
}

fn named(name: &str, dir: &Path) -> String {
    format!("{name}={}", dir.display())
}

/// The records of a file with these adapters by turns.
fn assigned(data: &Path, names: &[Option<&str>], dir: &Path) -> (PathBuf, Vec<Option<String>>) {
    let mut of = Vec::new();
    let mut text = String::new();
    for (at, mut record) in encoders::lines(data).into_iter().enumerate() {
        let name = names[at % names.len()];
        match name {
            Some(name) => record["adapter"] = json!(name),
            None if at % 2 == 0 => record["adapter"] = Value::Null,
            None => {}
        }
        of.push(name.map(String::from));
        text += &format!("{record}\n");
    }
    let path = dir.join("assigned.jsonl");
    std::fs::write(&path, text).unwrap();
    (path, of)
}

#[test]
fn a_language_model_is_evaluated_and_goes_on_with_the_adapter_that_each_record_names() {
    let dir = tempfile::tempdir().unwrap();
    let data = fixtures().join("train20/train.jsonl");
    let (top, wide) = (tree(), tree().join("wide"));
    let both = [named("top", &top), named("wide", &wide)];
    let (mixed, of) = assigned(&data, &[Some("wide"), Some("top"), None], dir.path());
    let eval = |data: &Path, adapters: &[String], file: &str| {
        let predictions = dir.path().join(file);
        let mut command = lora(["eval", "--device", "flex", "--max-length", "48"]);
        command.arg("--model").arg(model()).arg("--data").arg(data);
        command.arg("--predictions").arg(&predictions);
        adapters.iter().for_each(|adapter| {
            command.arg("--adapter").arg(adapter);
        });
        succeed(&mut command);
        let lines = encoders::lines(&predictions);
        lines
            .iter()
            .map(|line| line["loss"].as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let found = eval(&mixed, &both, "mixed.jsonl");
    let bare = eval(&data, &[], "bare.jsonl");
    let of_top = eval(&data, &[top.display().to_string()], "top.jsonl");
    let of_wide = eval(&data, &[wide.display().to_string()], "wide.jsonl");
    assert_eq!(found.len(), of.len());
    for (at, name) in of.iter().enumerate() {
        let (expected, others) = match name.as_deref() {
            None => (bare[at], [of_top[at], of_wide[at]]),
            Some("top") => (of_top[at], [bare[at], of_wide[at]]),
            _ => (of_wide[at], [bare[at], of_top[at]]),
        };
        assert!(
            (found[at] - expected).abs() < TOLERANCE,
            "{at}: {} {expected}",
            found[at]
        );
        assert!(
            others
                .iter()
                .all(|other| (found[at] - other).abs() > 10.0 * TOLERANCE),
            "{at}"
        );
    }

    let prompts = ["Aromi, coffee shop:", "The Punter", "near the river"];
    let generate = |adapters: &[String], more: &[&str]| {
        let mut command = lora([
            "generate",
            "--device",
            "flex",
            "--max-new-tokens",
            "6",
            "--json",
        ]);
        command.arg("--model").arg(model());
        adapters.iter().for_each(|adapter| {
            command.arg("--adapter").arg(adapter);
        });
        let output = encoders::stdout(command.args(more));
        let lines = output
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| line["text"].as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    let plain: Vec<&str> = prompts
        .iter()
        .flat_map(|prompt| ["--prompt", prompt])
        .collect();
    let bare = generate(&[], &plain);
    let of_top = generate(&[top.display().to_string()], &plain);
    let of_wide = generate(&[wide.display().to_string()], &plain);
    let file = dir.path().join("prompts.jsonl");
    let lines = [
        json!({"prompt": prompts[0], "adapter": "wide"}),
        json!({"prompt": prompts[1]}),
        json!({"prompt": prompts[2], "adapter": "top"}),
    ];
    std::fs::write(&file, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let file = file.to_str().unwrap();
    let expected = [of_wide[0].clone(), bare[1].clone(), of_top[2].clone()];
    assert_eq!(generate(&both, &["--prompts", file]), expected);
    let expected = [of_wide[0].clone(), of_top[1].clone(), of_top[2].clone()];
    assert_eq!(
        generate(&both, &["--prompts", file, "--use", "top"]),
        expected
    );
    let with_use: Vec<&str> = plain.iter().copied().chain(["--use", "wide"]).collect();
    assert_eq!(generate(&both, &with_use), of_wide);
    assert!(bare != of_top && of_top != of_wide && of_wide != bare);
}

#[test]
fn a_classifier_reads_each_text_with_the_adapter_and_head_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let base = encoders::encoder("bert", dir.path());
    let data = dir.path().join("data.jsonl");
    let texts = [
        "a good film",
        "bad",
        "the worst film of all",
        "a fine day out",
        "no",
        "so good !",
    ];
    let records = texts.iter().enumerate().map(|(at, text)| {
        let label = if at % 2 == 0 { "yes" } else { "no" };
        format!("{}\n", json!({"text": text, "label": label}))
    });
    std::fs::write(&data, records.collect::<String>()).unwrap();
    let adapter = |name: &str, options: &[&str]| {
        let out = dir.path().join(name);
        let mut command = encoders::learn(&base, &data, &out);
        command.args([
            "--task",
            "classification",
            "--epochs",
            "3",
            "--labels",
            "yes,no",
        ]);
        succeed(command.args(options));
        out.join("adapter")
    };
    let one = adapter("one", &["--seed", "1", "--rank", "2"]);
    let other = adapter(
        "other",
        &[
            "--seed",
            "7",
            "--rank",
            "3",
            "--targets",
            "key,intermediate.dense",
        ],
    );
    let logits = |data: &Path, adapters: &[String], file: &str| {
        let predictions = dir.path().join(file);
        let mut command = encoders::eval(&base, data);
        command.arg("--predictions").arg(&predictions);
        adapters.iter().for_each(|adapter| {
            command.arg("--adapter").arg(adapter);
        });
        succeed(&mut command);
        let lines = encoders::lines(&predictions);
        lines
            .iter()
            .map(|line| encoders::numbers(&line["logits"]))
            .collect::<Vec<_>>()
    };
    let both = [named("one", &one), named("other", &other)];
    let (mixed, of) = assigned(
        &data,
        &[Some("one"), Some("other"), Some("other")],
        dir.path(),
    );
    let found = logits(&mixed, &both, "mixed.jsonl");
    let of_one = logits(&data, &[one.display().to_string()], "one.jsonl");
    let of_other = logits(&data, &[other.display().to_string()], "other.jsonl");
    let distance = |a: &[f64], b: &[f64]| {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max)
    };
    for (at, name) in of.iter().enumerate() {
        let (expected, another) = match name.as_deref() {
            Some("one") => (&of_one[at], &of_other[at]),
            _ => (&of_other[at], &of_one[at]),
        };
        assert!(distance(&found[at], expected) < TOLERANCE, "{at}");
        assert!(distance(&found[at], another) > 10.0 * TOLERANCE, "{at}");
    }

    let predict = |adapters: &[String], more: &[&str]| {
        let mut command = encoders::predict(&base);
        adapters.iter().for_each(|adapter| {
            command.arg("--adapter").arg(adapter);
        });
        let output = encoders::stdout(command.arg("--json").args(more));
        output
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .collect::<Vec<_>>()
    };
    let (mixed, data) = (mixed.to_str().unwrap(), data.to_str().unwrap());
    let of_one = predict(&[one.display().to_string()], &["--data", data]);
    let of_other = predict(&[other.display().to_string()], &["--data", data]);
    let found = predict(&both, &["--data", mixed]);
    let used = predict(&both, &["--data", data, "--use", "one"]);
    for (at, name) in of.iter().enumerate() {
        let expected = match name.as_deref() {
            Some("one") => &of_one[at],
            _ => &of_other[at],
        };
        let score = |line: &Value| line["scores"]["yes"].as_f64().unwrap();
        assert!(
            (score(&found[at]) - score(expected)).abs() < TOLERANCE,
            "{at}"
        );
        assert!(
            (score(&used[at]) - score(&of_one[at])).abs() < TOLERANCE,
            "{at}"
        );
    }

    // The base has no head: a text must name an adapter.
    let mut command = encoders::predict(&base);
    both.iter().for_each(|adapter| {
        command.arg("--adapter").arg(adapter);
    });
    fail(
        command.args(["--text", "a good film"]),
        1,
        &["names no adapter", "classifier"],
    );
}

#[test]
fn names_that_lead_nowhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = fixtures().join("train20/train.jsonl");
    let (top, wide) = (named("top", &tree()), named("wide", &tree().join("wide")));
    let command = |adapters: &[&str], data: &Path| {
        let mut command = lora(["eval", "--device", "flex", "--max-length", "48"]);
        command.arg("--model").arg(model()).arg("--data").arg(data);
        command.args(adapters.iter().flat_map(|adapter| ["--adapter", *adapter]));
        command
    };
    let (unknown, _) = assigned(&data, &[Some("top"), Some("wid")], dir.path());
    fail(
        &mut command(&[&top, &wide], &unknown),
        1,
        &["assigned.jsonl, line 2", "`wid`", "`wide`"],
    );
    // Nobody names one; one has no name; a name twice; a column without names.
    fail(
        &mut command(&[&top, &wide], &data),
        1,
        &["`adapter`", "adapter_column"],
    );
    let unnamed = tree().display().to_string();
    fail(&mut command(&[&top, &unnamed], &data), 2, &["NAME=DIR"]);
    fail(&mut command(&[&top, &top], &data), 2, &["`top`", "twice"]);
    fail(
        command(&[&unnamed], &data).args(["--adapter-column", "task"]),
        2,
        &["NAME=DIR"],
    );
    fail(
        command(&[&top, &wide], &unknown).arg("--generate"),
        2,
        &["generate", "named"],
    );
    let mut generate = lora([
        "generate", "--device", "flex", "--prompt", "a", "--use", "wide",
    ]);
    fail(generate.arg("--model").arg(model()), 2, &["NAME=DIR"]);
}
