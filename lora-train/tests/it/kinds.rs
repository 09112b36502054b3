//! Every kind of adapter trains, evaluates, saves, reloads and merges from the program; adapters are combined and
//! converted.

use crate::common::{adapter, fail, fixtures, lora, metrics, model, succeed, train};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn data() -> PathBuf {
    fixtures().join("train20/train.jsonl")
}

/// Per-example losses of a model directory, with or without an adapter.
fn example_losses(model: &Path, adapter: Option<&Path>, file: &Path) -> Vec<f64> {
    let mut command = lora(["eval", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(model).arg("--data").arg(data());
    command.arg("--predictions").arg(file);
    if let Some(adapter) = adapter {
        command.arg("--adapter").arg(adapter);
    }
    succeed(&mut command);
    let text = std::fs::read_to_string(file).unwrap();
    let values = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    values
        .map(|value| value["loss"].as_f64().unwrap())
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn config(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn every_kind_trains_and_its_file_and_its_merge_score_the_same() {
    // Options; a key of the configuration with its value; a tensor that the file has.
    let cases: &[(&[&str], &str, Value, &str)] = &[
        (
            &["--rank", "2", "--dora", "--dropout", "0.1"],
            "use_dora",
            true.into(),
            "lora_magnitude_vector",
        ),
        (
            &["--rank", "2", "--targets", "c_attn[q,v]", "--dora"],
            "r",
            4.into(),
            "lora_magnitude_vector",
        ),
        (
            &["--rank", "2", "--lora-bias"],
            "lora_bias",
            true.into(),
            "lora_B.bias",
        ),
        (
            &["--rank", "2", "--bias", "all"],
            "bias",
            "all".into(),
            "ln_f.bias",
        ),
        (
            &["--rank", "2", "--bias", "lora-only"],
            "bias",
            "lora_only".into(),
            "base_layer.bias",
        ),
        (
            &["--rank", "2", "--init", "orthogonal"],
            "init_lora_weights",
            "orthogonal".into(),
            "lora_A",
        ),
        (&["--rank", "2", "--init", "pissa"], "r", 4.into(), "lora_A"),
        (
            &["--rank", "2", "--init", "pissa-niter-3", "--dora"],
            "init_lora_weights",
            true.into(),
            "lora_A",
        ),
        (&["--rank", "3", "--init", "olora"], "r", 6.into(), "lora_A"),
        (
            &["--rank", "2", "--loraplus-lr-ratio", "4"],
            "r",
            2.into(),
            "lora_A",
        ),
        (
            &[
                "--rank",
                "2",
                "--targets",
                "wte,c_attn",
                "--loraplus-lr-ratio",
                "4",
            ],
            "r",
            2.into(),
            "lora_embedding_A",
        ),
        (&["--bitfit"], "bias", "all".into(), "ln_f.bias"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let base = mean(&example_losses(
        &model(),
        None,
        &dir.path().join("base.jsonl"),
    ));
    for (number, (options, key, value, tensor)) in cases.iter().enumerate() {
        let out = dir.path().join(number.to_string());
        let mut command = train(&data(), &out);
        command
            .args(*options)
            .args(["--max-steps", "12", "--lr", "2e-2", "--merge"]);
        succeed(&mut command);
        let what = options.join(" ");
        assert_eq!(
            metrics(&out)
                .iter()
                .filter(|line| line.get("loss").is_some())
                .count(),
            12,
            "{what}"
        );
        let weights = out.join("adapter");
        assert_eq!(&config(&weights)[*key], value, "{what}");
        let names: Vec<String> = adapter(&weights)
            .into_iter()
            .map(|(name, ..)| name)
            .collect();
        assert!(
            names.iter().any(|name| name.contains(tensor)),
            "{what}: {names:?}"
        );
        if options.contains(&"--bitfit") {
            assert!(
                names.iter().all(|name| name.ends_with(".bias")),
                "{names:?}"
            );
        }
        let with = example_losses(
            &model(),
            Some(&weights),
            &dir.path().join(format!("{number}-a.jsonl")),
        );
        let merged = example_losses(
            &out.join("merged"),
            None,
            &dir.path().join(format!("{number}-m.jsonl")),
        );
        assert!(
            mean(&with) < base - 0.1,
            "{what}: {} is not below {base}",
            mean(&with)
        );
        for (with, merged) in with.iter().zip(&merged) {
            assert!((with - merged).abs() < 1e-4, "{what}: {with} {merged}");
        }
    }
}

#[test]
fn options_that_exclude_each_other_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |options: &[&str], words: &[&str]| {
        let mut command = train(&data(), &dir.path().join("out"));
        fail(command.args(options), 2, words);
    };
    refused(&["--bitfit", "--rank", "2"], &["rank", "method bitfit"]);
    refused(&["--bitfit", "--full"], &["bitfit"]);
    refused(
        &["--full", "--loraplus-lr-ratio", "2"],
        &["loraplus_lr_ratio"],
    );
    refused(&["--init", "loftq"], &["loftq", "pissa"]);
    refused(&["--bias", "some"], &["some"]);
    let mut command = train(&data(), &dir.path().join("out"));
    fail(
        command.args(["--dora", "--lora-bias"]),
        1,
        &["lora_bias", "DoRA"],
    );
    assert!(!dir.path().join("out").exists());
}

/// Two adapters of a few steps each, of other seeds.
fn two_adapters(dir: &Path) -> [PathBuf; 2] {
    ["1", "2"].map(|seed| {
        let out = dir.join(seed);
        let mut command = train(&data(), &out);
        command.args([
            "--rank",
            "2",
            "--max-steps",
            "4",
            "--lr",
            "1e-2",
            "--seed",
            seed,
        ]);
        succeed(&mut command);
        out.join("adapter")
    })
}

#[test]
fn adapters_are_combined() {
    let dir = tempfile::tempdir().unwrap();
    let adapters = two_adapters(dir.path());
    let out = dir.path().join("both");
    let combine = |options: &[&str]| {
        let mut command = lora(["combine"]);
        command
            .args(&adapters)
            .args(options)
            .arg("--output")
            .arg(&out);
        command
    };
    let text = succeed(&mut combine(&["--weights", "1,-1"]));
    assert!(text.contains("combined 2 adapters"), "{text}");
    assert_eq!(config(&out)["r"], 4);
    fail(&mut combine(&[]), 1, &["already exists"]);
    // ΔW − ΔW of one adapter changes nothing.
    let zero = dir.path().join("zero");
    let mut command = lora(["combine"]);
    command
        .args([&adapters[0], &adapters[0]])
        .args(["--weights", "1,-1", "--output"])
        .arg(&zero);
    succeed(&mut command);
    let base = example_losses(&model(), None, &dir.path().join("base.jsonl"));
    let with = example_losses(&model(), Some(&zero), &dir.path().join("zero.jsonl"));
    for (with, base) in with.iter().zip(&base) {
        assert!((with - base).abs() < 1e-5, "{with} {base}");
    }
    let text = succeed(&mut combine(&[
        "--method",
        "svd",
        "--rank",
        "1",
        "--overwrite",
    ]));
    assert!(
        text.contains("largest truncation error of an update"),
        "{text}"
    );
    succeed(&mut combine(&[
        "--method",
        "dare-ties",
        "--density",
        "0.5",
        "--overwrite",
    ]));
    fail(&mut combine(&["--method", "ties"]), 2, &["density"]);
    fail(
        &mut combine(&["--method", "mean"]),
        2,
        &["method", "magnitude_prune"],
    );
    fail(&mut combine(&["--rank", "2"]), 2, &["rank", "svd"]);
    fail(&mut combine(&["--weights", "1"]), 2, &["weights"]);
    fail(
        &mut combine(&["--head-from", "3"]),
        2,
        &["head_from", "1 to 2"],
    );
}

#[test]
fn adapters_are_converted_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let [adapter_dir, _] = two_adapters(dir.path());
    let convert = |from: &Path, to: &str, output: &Path, options: &[&str]| {
        let mut command = lora(["convert"]);
        command
            .arg(from)
            .args(["--to", to])
            .args(options)
            .arg("--output")
            .arg(output);
        command
    };
    let path = |name: &str| dir.path().join(name);
    let rename = ["--rename", "model.=transformer."];
    succeed(&mut convert(&adapter_dir, "mlx", &path("mlx"), &rename));
    let back = [
        "--rename",
        "model.=transformer.",
        "--task-type",
        "CAUSAL_LM",
        "--fan-in-fan-out",
    ];
    succeed(&mut convert(&path("mlx"), "peft", &path("peft"), &back));
    assert_eq!(adapter(&path("peft")), adapter(&adapter_dir));
    assert_eq!(config(&path("peft"))["task_type"], "CAUSAL_LM");

    for name in ["loralib.safetensors", "loralib.bin"] {
        let (file, again) = (path(name), path("again"));
        succeed(&mut convert(&adapter_dir, "loralib", &file, &[]));
        fail(&mut convert(&file, "peft", &again, &[]), 2, &["alpha"]);
        succeed(&mut convert(
            &file,
            "peft",
            &again,
            &["--alpha", "8", "--overwrite"],
        ));
        assert_eq!(adapter(&again), adapter(&adapter_dir), "{name}");
    }
    fail(
        &mut convert(&adapter_dir, "loralib", &path("loralib.data"), &[]),
        1,
        &["loralib.data", ".bin"],
    );
    fail(
        &mut convert(
            &adapter_dir,
            "peft",
            &path("other"),
            &["--rename", "gpt.=gpt2."],
        ),
        2,
        &["rename", "gpt.=gpt2."],
    );
    let before = example_losses(&model(), Some(&adapter_dir), &path("before.jsonl"));
    let after = example_losses(&model(), Some(&path("again")), &path("after.jsonl"));
    assert_eq!(before, after);
    fail(
        &mut convert(&adapter_dir, "peft", &path("other"), &["--alpha", "8"]),
        2,
        &["alpha", "loralib"],
    );
    fail(
        &mut convert(&model(), "peft", &path("other"), &[]),
        2,
        &["from"],
    );
    assert!(!path("other").exists());
}
