//! `lora bench` and `lora plan` from the outside.

use crate::common::{fail, fixtures, lora, model, succeed, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn encoder(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lora-models/tests/fixtures");
    fixtures.join("encoders").join(name)
}

/// Runs a command and parses the JSON of its last line.
fn last_line(command: &mut Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", text(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(printed.lines().last().unwrap()).unwrap()
}

fn positive(report: &Value, keys: &[&str]) {
    for key in keys {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}: {report}");
    }
}

fn shape(command: &mut Command, model: &Path) {
    command.arg("--model").arg(model);
    command.args([
        "--batch-size",
        "2",
        "--max-length",
        "12",
        "--device",
        "flex",
    ]);
}

#[test]
fn steps_are_timed_with_adapters_and_with_all_weights() {
    for model in [model(), encoder("bert_seq"), encoder("v3_reg")] {
        let step = |more: &[&str]| {
            let mut command = lora(["bench", "step", "--steps", "1"]);
            shape(&mut command, &model);
            command.args(more);
            last_line(&mut command)
        };
        let adapter = step(&["--rank", "2"]);
        positive(
            &adapter,
            &["median_s", "min_s", "trainable", "tokens_per_s", "loss"],
        );
        if cfg!(target_os = "linux") {
            positive(&adapter, &["peak_mib"]);
        }
        let full = step(&["--full"]);
        assert!(full["trainable"].as_u64() > adapter["trainable"].as_u64());
        // The weights are the same, and so is the loss of the model before it trains: both after three steps differ.
        let again = step(&["--rank", "2", "--checkpoint-activations"]);
        let difference = again["loss"].as_f64().unwrap() - adapter["loss"].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "{difference}");
    }
}

#[test]
fn an_epoch_is_timed_on_data_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("recipe.toml");
    let text = format!(
        "model = {:?}\ndata = {:?}\noutput = \"out\"\nrank = 2\nbatch_size = 4\nmax_length = 24\n",
        model(),
        fixtures().join("train20/train.jsonl")
    );
    std::fs::write(&recipe, text).unwrap();
    let mut command = lora(["bench", "epoch", "--device", "flex", "--max-steps", "3"]);
    let report = last_line(command.arg(&recipe));
    positive(&report, &["median_s", "tokens", "tokens_per_s", "seconds"]);
    assert_eq!(report["steps"], 2.0);
    assert!(!dir.path().join("out").exists());
    let mut command = lora(["bench", "epoch", "--device", "flex", "--max-steps", "1"]);
    fail(command.arg(&recipe), 2, &["max_steps"]);
}

#[test]
fn inference_and_loading_are_timed() {
    let mut command = lora(["bench", "inference", "--steps", "2"]);
    shape(&mut command, &model());
    let report = last_line(&mut command);
    positive(
        &report,
        &["base_s", "merged_s", "adapter_s", "merged_to_base"],
    );
    let mut command = lora([
        "bench", "load", "--steps", "1", "--device", "flex", "--model",
    ]);
    let report = last_line(command.arg(model()));
    positive(&report, &["median_s", "parameters"]);
}

#[test]
fn a_plan_says_what_a_run_takes() {
    let mut command = lora([
        "plan",
        "--rank",
        "2",
        "--memory",
        "4000",
        "--examples",
        "40",
    ]);
    shape(&mut command, &model());
    let plan = last_line(&mut command);
    positive(
        &plan,
        &[
            "weights_mib",
            "gradients_mib",
            "optimizer_mib",
            "peak_mib",
            "step_s",
            "epoch_s",
            "largest_batch",
        ],
    );
    let mut command = lora(["plan", "--no-calibration", "--preset", "roberta-base"]);
    let text = succeed(&mut command);
    assert!(text.contains("not measured"), "{text}");
    assert!(text.contains("of 124647170 parameters"), "{text}");
}

#[test]
fn what_does_not_exist_is_refused() {
    let mut unknown = lora(["bench", "step", "--preset", "gpt5"]);
    fail(&mut unknown, 2, &["deberta-v3-base"]);
    fail(&mut lora(["plan", "--model", "nowhere"]), 1, &["nowhere"]);
    let mut target = lora(["bench", "step", "--targets", "c_atn", "--preset", "minilm"]);
    fail(&mut target, 1, &["c_atn"]);
}
