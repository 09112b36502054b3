//! Each method of the paper trains from the program, is evaluated, and is merged or refused with a reason.

use crate::common::{fail, fixtures, lora, losses, metrics, model, succeed, train};
use lora_train::options::Method;
use lora_train::tools::bench::{Shape, Training};
use lora_train::tools::{PlanOptions, estimate};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use test_support::tensors::json as json_file;

fn data() -> PathBuf {
    fixtures().join("train20/train.jsonl")
}

/// Methods with their options, and true if the result can be merged.
const METHODS: &[(&[&str], bool)] = &[
    (&["--method", "adapter-h", "--adapter-size", "3"], false),
    (&["--method", "adapter-l"], false),
    (&["--method", "adapter-p", "--adapter-drop", "1"], false),
    (&["--method", "prompt", "--virtual-tokens", "3"], false),
    (
        &[
            "--method",
            "prompt",
            "--virtual-tokens",
            "3",
            "--prompt-text",
            "a name",
        ],
        false,
    ),
    (&["--method", "prefix", "--virtual-tokens", "3"], false),
    (
        &["--method", "prefix-layer", "--virtual-tokens", "3"],
        false,
    ),
    (
        &[
            "--method",
            "lora+prompt",
            "--virtual-tokens",
            "2",
            "--rank",
            "2",
        ],
        true,
    ),
    (
        &["--method", "lora+prefix-layer", "--virtual-tokens", "2"],
        true,
    ),
    (&["--method", "lora+adapter-h", "--rank", "2"], true),
    (&["--method", "bitfit"], true),
    (&["--method", "top2"], true),
];

#[test]
fn every_method_learns_is_evaluated_and_merged_or_refused() {
    for (options, merges) in METHODS {
        let what = options.join(" ");
        let dir = tempfile::tempdir().unwrap();
        let mut command = train(&data(), dir.path());
        command
            .args(*options)
            .args(["--lr", "2e-2", "--max-steps", "12"]);
        succeed(&mut command);
        let losses = losses(dir.path()).into_iter();
        let losses: Vec<f64> = losses.map(|loss| loss.parse().unwrap()).collect();
        let (first, last) = (&losses[..4], &losses[losses.len() - 4..]);
        // Batches differ.
        let sum = |losses: &[f64]| losses.iter().sum::<f64>();
        assert!(sum(last) < sum(first), "{what}: {losses:?}");

        let adapter = dir.path().join("adapter");
        let mut eval = lora(["eval", "--device", "flex", "--max-length", "40"]);
        eval.arg("--model").arg(model()).arg("--data").arg(data());
        succeed(eval.arg("--adapter").arg(&adapter));

        let card = std::fs::read_to_string(adapter.join("README.md")).unwrap();
        let alone = options[1].starts_with("adapter");
        assert_eq!(card.contains("adapters.init(model)"), alone, "{card}");
        assert_eq!(card.contains("PeftModel"), !alone, "{card}");

        let merged = dir.path().join("merged");
        let mut merge = lora(["merge", "--device", "flex"]);
        merge
            .arg("--model")
            .arg(model())
            .arg("--adapter")
            .arg(&adapter);
        merge.arg("--output").arg(&merged);
        if *merges {
            succeed(&mut merge);
        } else {
            fail(&mut merge, 2, &["adapter", "nothing to merge"]);
        }
        // It is trained further without naming the method again.
        let mut again = train(&data(), &dir.path().join("again"));
        again
            .arg("--adapter")
            .arg(&adapter)
            .args(["--max-steps", "1"]);
        succeed(&mut again);
    }
}

#[test]
fn contradictions_are_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let refused = |options: &[&str], words: &[&str]| {
        fail(train(&data(), &out).args(options), 2, words);
    };
    refused(&["--method", "lora+full"], &["alone"]);
    refused(&["--method", "lora", "--full"], &["full", "method lora"]);
    refused(
        &["--method", "prompt"],
        &["virtual_tokens", "--virtual-tokens"],
    );
    refused(
        &["--method", "lora", "--adapter-size", "4"],
        &["adapter_size"],
    );
    refused(
        &["--method", "adapter-h", "--rank", "4"],
        &["rank", "adapter-h"],
    );
    refused(
        &["--method", "top2", "--targets", "c_attn"],
        &["targets", "top2"],
    );
    refused(
        &["--method", "adapter-p", "--adapter-activation", "softmax"],
        &["adapter_activation", "relu"],
    );
    assert!(!out.exists());
}

fn counted(dir: &Path, method: &str, change: impl FnOnce(&mut Shape)) -> usize {
    let mut shape = Shape {
        model: Some(dir.into()),
        method: Some(method.parse::<Method>().unwrap()),
        ..Shape::default()
    };
    change(&mut shape);
    let options = PlanOptions {
        shape,
        training: Training::default(),
        no_calibration: true,
        ..PlanOptions::default()
    };
    estimate(&options).unwrap().trainable
}

/// Hu et al. 2021, table 3, GPT-2 medium.
#[test]
fn plan_counts_the_parameters_of_the_papers_table() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "gpt2", "n_layer": 24, "n_embd": 1024, "n_head": 16, "n_positions": 1024,
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let dir = dir.path();
    let sized = |size| move |shape: &mut Shape| shape.adapter_size = Some(size);
    assert_eq!(counted(dir, "adapter-l", sized(6)), 368_784);
    assert_eq!(counted(dir, "adapter-l", sized(224)), 11_089_152);
    assert_eq!(counted(dir, "adapter-h", sized(112)), 11_064_576);
    // FT-Top2: 25.19 M.
    assert_eq!(counted(dir, "top2", |_| {}), 25_192_448);
    let tokens = |count| move |shape: &mut Shape| shape.virtual_tokens = Some(count);
    assert_eq!(counted(dir, "prefix-layer", tokens(14)), 344_064);
    assert_eq!(counted(dir, "prompt", tokens(14)), 14 * 1024);
}

/// Adapter layers as the library `adapters` trains them, a prompt as PEFT does, biases and the top layers as PyTorch does: accumulation over
/// unequal batches, clipping, warm-up and linear decay, and a strong weight decay, which biases and norms are spared.
#[test]
fn steps_give_the_losses_and_norms_of_the_reference() {
    let expected = json_file(&fixtures().join("methods/expected.json"));
    for (method, steps) in expected.as_object().unwrap() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = train(&data(), dir.path());
        command.args(["--method", method.as_str()]);
        let start = fixtures().join("methods").join(method);
        if start.exists() {
            command.arg("--adapter").arg(start);
        }
        command.args(["--lr", "1e-2", "--weight-decay", "0.1"]);
        command.args(["--warmup-steps", "3", "--max-steps", "12"]);
        command.args(["--batch-size", "2", "--grad-accumulation", "2"]);
        command.arg("--no-shuffle");
        succeed(&mut command);
        let found = metrics(dir.path());
        let steps = steps.as_array().unwrap();
        assert_eq!(found.len(), steps.len());
        for (found, expected) in found.iter().zip(steps) {
            for key in ["loss", "lr", "grad_norm"] {
                let value = |line: &Value| line[key].as_f64().unwrap();
                // The reference is in float64; the largest norm is 11.
                let difference = (value(found) - value(expected)).abs();
                assert!(
                    difference < 2e-5 * value(expected).max(1.0),
                    "{method}, step {}: {key} is off by {difference}",
                    found["step"]
                );
            }
        }
    }
}
