//! Prefixes train as PEFT's do, alone and beside LoRA, and are evaluated, merged, resumed, inspected and refused
//! from the program.

use crate::common::{adapter, fail, fixtures, lora, losses, metrics, model, succeed, train};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::compare::assert_within;
use test_support::tensors::json;

fn data() -> PathBuf {
    fixtures().join("train20/train.jsonl")
}

fn config(dir: &Path) -> Value {
    json(&dir.join("adapter_config.json"))
}

/// Per-example losses of a model directory, with or without an adapter.
fn example_losses(model: &Path, adapter: Option<&Path>, file: &Path) -> Vec<f64> {
    let mut command = lora(["eval", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(model).arg("--data").arg(data());
    command.arg("--predictions").arg(file).arg("--overwrite");
    if let Some(adapter) = adapter {
        command.arg("--adapter").arg(adapter);
    }
    succeed(&mut command);
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines();
    lines
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["loss"]
                .as_f64()
                .unwrap()
        })
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Accumulation over unequal batches, warm-up and linear decay, and a strong weight decay, which the prefix takes part in.
#[test]
fn steps_give_pefts_losses_norms_and_adapters() {
    for name in ["alone", "lora"] {
        let fixture = fixtures().join("prefix").join(name);
        let dir = tempfile::tempdir().unwrap();
        let mut command = train(&data(), dir.path());
        command.arg("--adapter").arg(fixture.join("init"));
        command.args(["--lr", "1e-2", "--weight-decay", "0.1"]);
        command.args(["--warmup-steps", "3", "--max-steps", "12"]);
        command.args([
            "--batch-size",
            "2",
            "--grad-accumulation",
            "2",
            "--no-shuffle",
        ]);
        succeed(&mut command);

        let steps = metrics(dir.path());
        let expected = json(&fixture.join("expected.json"));
        let expected = expected["steps"].as_array().unwrap();
        assert_eq!(steps.len(), expected.len());
        for (found, expected) in steps.iter().zip(expected) {
            for key in ["loss", "lr", "grad_norm"] {
                let value = |line: &Value| line[key].as_f64().unwrap();
                // The reference is in float64.
                let difference = (value(found) - value(expected)).abs();
                assert!(
                    difference < 2e-5,
                    "{name}, step {}: {key} is off by {difference}",
                    found["step"]
                );
            }
            assert_eq!(found["tokens"], expected["tokens"]);
        }
        let parts: &[&str] = if name == "alone" {
            &[""]
        } else {
            &["", "prefix"]
        };
        for part in parts {
            let found = adapter(&dir.path().join("adapter").join(part));
            let expected = adapter(&fixture.join("final").join(part));
            assert_eq!(found.len(), expected.len(), "{name}/{part}");
            for ((name, shape, values), (e_name, e_shape, e_values)) in found.iter().zip(&expected)
            {
                assert_eq!((name, shape), (e_name, e_shape));
                for (value, expected) in values.iter().zip(e_values) {
                    assert!(
                        (value - expected).abs() < 1e-4,
                        "{name}: {value} is not {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_prefix_trains_alone_and_beside_every_kind() {
    let cases: &[&[&str]] = &[
        &["--prefix", "4", "--prefix-only"],
        &["--prefix", "2", "--rank", "2", "--dropout", "0.1"],
        &[
            "--prefix",
            "2",
            "--rank",
            "2",
            "--dora",
            "--loraplus-lr-ratio",
            "4",
        ],
        &["--prefix", "3", "--bitfit"],
    ];
    let dir = tempfile::tempdir().unwrap();
    let base = mean(&example_losses(&model(), None, &dir.path().join("base")));
    for (number, options) in cases.iter().enumerate() {
        let what = options.join(" ");
        let out = dir.path().join(number.to_string());
        let mut command = train(&data(), &out);
        command
            .args(*options)
            .args(["--max-steps", "30", "--lr", "3e-2"]);
        let alone = options.contains(&"--prefix-only");
        if !alone {
            command.arg("--merge");
        }
        let text = succeed(&mut command);
        assert!(text.contains("virtual tokens"), "{text}");
        let weights = out.join("adapter");
        let prefix = if alone {
            weights.clone()
        } else {
            weights.join("prefix")
        };
        assert_eq!(config(&prefix)["peft_type"], "PREFIX_TUNING", "{what}");
        let tokens: usize = options[1].parse().unwrap();
        assert_eq!(adapter(&prefix)[0].1, [tokens, 96], "{what}");
        assert!(weights.join("prefix").exists() != alone, "{what}");

        let with = example_losses(&model(), Some(&weights), &dir.path().join("with"));
        assert!(
            mean(&with) < base - 0.1,
            "{what}: {} is not below {base}",
            mean(&with)
        );
        if alone {
            continue;
        }
        // The merged model needs the prefix beside it, and says where it is.
        let merged = out.join("merged");
        assert!(text.contains("beside    the merged model"), "{text}");
        let both = example_losses(&merged, Some(&merged.join("prefix")), &dir.path().join("m"));
        assert_within(&both, &with, |_| 1e-4, &what);
        let without = example_losses(&merged, None, &dir.path().join("m"));
        assert!((mean(&without) - mean(&with)).abs() > 1e-2, "{what}");
    }
}

fn merge(adapter: &Path, output: &Path) -> Command {
    let mut command = lora(["merge", "--device", "flex"]);
    command.arg("--model").arg(model());
    command
        .arg("--adapter")
        .arg(adapter)
        .arg("--output")
        .arg(output);
    command
}

#[test]
fn a_merge_takes_lora_and_leaves_the_prefix_beside() {
    let dir = tempfile::tempdir().unwrap();
    let both = fixtures().join("prefix/lora/final");
    let out = dir.path().join("merged");
    let text = succeed(&mut merge(&both, &out));
    assert!(
        text.contains("merged 2 modules") && text.contains("no weight can hold"),
        "{text}"
    );
    assert_eq!(adapter(&out.join("prefix")), adapter(&both.join("prefix")));
    let with = example_losses(&model(), Some(&both), &dir.path().join("with"));
    let merged = example_losses(
        &out,
        Some(&out.join("prefix")),
        &dir.path().join("merged.jsonl"),
    );
    assert_within(&merged, &with, |_| 1e-4, "merged");
    fail(&mut merge(&both, &out), 1, &["already exists"]);
    assert!(out.join("prefix").exists());
    succeed(merge(&both, &out).arg("--overwrite"));

    let alone = fixtures().join("prefix/alone/final");
    let other = dir.path().join("other");
    fail(
        &mut merge(&alone, &other),
        2,
        &["adapter", "nothing to merge"],
    );
    assert!(!other.exists());
}

#[test]
fn every_form_generates_and_is_inspected() {
    for (name, words) in [
        (
            "alone/final",
            &[
                "PREFIX_TUNING",
                "num_virtual_tokens 3",
                "prompt_embeddings [3, 96]",
            ][..],
        ),
        (
            "lora/final",
            &["LoRA adapter", "rank 3", "further adapters in prefix"],
        ),
        (
            "lora/final/prefix",
            &["PREFIX_TUNING", "num_virtual_tokens 3"],
        ),
    ] {
        let dir = fixtures().join("prefix").join(name);
        let text = succeed(lora(["inspect"]).arg(&dir));
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
        let generate = |tokens: &str| {
            let mut command = lora([
                "generate",
                "--device",
                "flex",
                "--prompt",
                "The Eagle",
                "--json",
            ]);
            command
                .arg("--model")
                .arg(model())
                .arg("--adapter")
                .arg(&dir);
            command.args(["--max-new-tokens", tokens]);
            command
        };
        assert!(succeed(&mut generate("5")).contains("The Eagle"));
        fail(
            &mut generate("62"),
            1,
            &["61 positions", "3 virtual tokens"],
        );
    }
}

fn run(what: &[&str], output: &Path) -> Command {
    let mut command = train(&data(), output);
    command.args(what);
    command.args(["--lr", "1e-2", "--schedule", "cosine", "--batch-size", "3"]);
    command.args(["--save-steps", "7", "--seed", "11", "--max-steps", "24"]);
    command.arg("--eval-data").arg(data());
    command
}

/// A run that is stopped in the middle, by taking away what it did after a checkpoint, goes on as if it had not been.
#[test]
fn a_resumed_run_has_identical_losses_and_ends_with_the_identical_prefix() {
    for what in [
        &["--prefix", "3", "--prefix-only"][..],
        &["--prefix", "3", "--rank", "2", "--dropout", "0.2"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
        succeed(&mut run(what, &whole));
        let mut child = run(what, &cut);
        let mut child = child
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let checkpoints = cut.join("checkpoints");
        let saved = || {
            let entries = std::fs::read_dir(&checkpoints)
                .into_iter()
                .flatten()
                .flatten();
            entries
                .filter(|e| e.file_name().to_string_lossy().starts_with("step-"))
                .count()
        };
        while saved() == 0 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(saved() > 0);
        let text = succeed(run(what, &cut).arg("--resume"));
        assert!(text.contains("resuming at step"), "{text}");
        assert_eq!(losses(&cut), losses(&whole));
        let parts: &[&str] = if what.contains(&"--prefix-only") {
            &[""]
        } else {
            &["", "prefix"]
        };
        for part in parts {
            let (cut, whole) = (
                cut.join("adapter").join(part),
                whole.join("adapter").join(part),
            );
            assert_eq!(adapter(&cut), adapter(&whole), "{part}");
        }
        let other: Vec<&str> = what
            .iter()
            .map(|word| if *word == "3" { "4" } else { *word })
            .collect();
        fail(
            run(&other, &cut).arg("--resume"),
            1,
            &["other options", "prefix"],
        );
    }
}

#[test]
fn a_run_goes_on_with_the_prefix_of_its_adapter_or_adds_one() {
    let dir = tempfile::tempdir().unwrap();
    let (alone, both) = (
        fixtures().join("prefix/alone/init"),
        fixtures().join("prefix/lora/init"),
    );
    let lora_alone = fixtures().join("train20/init");
    let start = |adapter: &Path, options: &[&str]| {
        let mut command = train(&data(), &dir.path().join("out"));
        command.arg("--adapter").arg(adapter).args(options);
        command.args(["--max-steps", "2", "--overwrite"]);
        command
    };
    succeed(&mut start(&lora_alone, &["--prefix", "5"]));
    let out = dir.path().join("out/adapter");
    assert_eq!(adapter(&out.join("prefix"))[0].1, [5, 96]);
    succeed(&mut start(&alone, &["--prefix", "3", "--prefix-only"]));
    succeed(&mut start(&alone, &[]));
    assert!(!out.join("prefix").exists());
    assert_eq!(config(&out)["peft_type"], "PREFIX_TUNING");

    fail(
        &mut start(&both, &["--prefix", "4"]),
        2,
        &["prefix", "3 virtual tokens"],
    );
    fail(
        &mut start(&both, &["--prefix-only"]),
        2,
        &["prefix_only", "LoRA"],
    );
    fail(
        &mut start(&alone, &["--rank", "2"]),
        2,
        &["rank", "has none"],
    );
    fail(
        &mut start(&alone, &["--merge"]),
        2,
        &["merge", "nothing to merge"],
    );
}

#[test]
fn what_a_prefix_does_not_go_with_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let refused = |options: &[&str], code: i32, words: &[&str]| {
        fail(train(&data(), &out).args(options), code, words);
    };
    refused(&["--prefix", "0"], 2, &["prefix", "at least 1"]);
    refused(&["--prefix", "3", "--full"], 2, &["prefix", "--full"]);
    refused(&["--prefix-only"], 2, &["prefix_only", "--prefix"]);
    refused(
        &["--prefix", "3", "--prefix-only", "--rank", "2"],
        2,
        &["rank", "the method prefix"],
    );
    refused(
        &["--prefix", "3", "--prefix-only", "--bitfit"],
        2,
        &["bitfit"],
    );
    refused(
        &["--prefix", "3", "--prefix-only", "--merge"],
        2,
        &["merge"],
    );
    refused(&["--prefix", "64"], 1, &["prefix", "1 to 63"]);
    // 64 positions, 20 of them the prefix's.
    refused(&["--prefix", "20"], 2, &["max_length", "44 tokens"]);
    assert!(!out.exists());

    let both = fixtures().join("prefix/lora/final");
    let other = dir.path().join("other");
    let mut command = lora(["combine"]);
    command.args([&both, &both]).arg("--output").arg(&other);
    fail(&mut command, 2, &["prefix", "not supported here"]);
    let mut command = lora(["convert", "--to", "mlx"]);
    command.arg(&both).arg("--output").arg(&other);
    fail(&mut command, 2, &["prefix", "not supported here"]);
    let mut command = lora(["convert", "--to", "mlx"]);
    command
        .arg(fixtures().join("prefix/alone/final"))
        .arg("--output")
        .arg(&other);
    fail(&mut command, 1, &["PREFIX_TUNING"]);
    assert!(!other.exists());
}
