//! Decoders of the Llama kind through the program: every command, and the steps of PEFT.

use crate::common::{adapter, eval_texts, fixtures, lora, metrics, model, succeed, texts};
use burn::tensor::Device;
use lora_core::files::Overwrite;
use lora_models::decoder::{DecoderConfig, DecoderLm};
use lora_models::{ExportOptions, FamilyConfig, Pretrained};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// `lora train` on a model.
fn train(model: &Path, output: &Path, options: &[&str]) -> String {
    let mut command = lora(["train", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(model);
    command.arg("--data").arg(texts());
    command.arg("--output").arg(output);
    command.args(options);
    succeed(&mut command)
}

/// Accumulation over unequal batches, clipping, warm-up and linear decay, weight decay, truncation
/// and several epochs, all in one.
#[test]
fn twenty_steps_of_a_qwen_give_pefts_losses_norms_and_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = fixtures().join("decoder20");
    let init = fixture.join("init");
    let options = [
        "--adapter",
        init.to_str().unwrap(),
        "--lr",
        "1e-2",
        "--weight-decay",
        "0.01",
        "--warmup-steps",
        "4",
        "--batch-size",
        "2",
        "--grad-accumulation",
        "2",
        "--max-steps",
        "20",
        "--no-shuffle",
    ];
    train(&fixture.join("base"), dir.path(), &options);
    let expected = test_support::tensors::json(&fixture.join("expected.json"));
    let steps = metrics(dir.path());
    assert_eq!(steps.len(), 20);
    for (found, expected) in steps.iter().zip(expected["steps"].as_array().unwrap()) {
        for key in ["loss", "lr", "grad_norm"] {
            let [f, e] = [found, expected].map(|step| step[key].as_f64().unwrap());
            // Norms and positions of the reference are in float32.
            assert!(
                (f - e).abs() < 5e-5,
                "{}: {key} {f} is not {e}",
                found["step"]
            );
        }
        assert_eq!(found["tokens"], expected["tokens"]);
    }
    let found = adapter(&dir.path().join("adapter"));
    let expected = adapter(&fixture.join("final"));
    assert_eq!(found.len(), expected.len());
    for ((name, shape, values), (e_name, e_shape, e_values)) in found.iter().zip(&expected) {
        assert_eq!((name, shape), (e_name, e_shape));
        for (value, expected) in values.iter().zip(e_values) {
            // Twenty steps of a learning rate of 0.01.
            assert!(
                (value - expected).abs() < 1e-3,
                "{name}: {value} {expected}"
            );
        }
    }
}

/// Writes a model of a family with random weights, and the fixtures' tokenizer.
fn random(family: &str, more: Value, dir: &Path) -> PathBuf {
    let mut object = json!({
        "model_type": family, "vocab_size": 300, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
        "bos_token_id": null, "eos_token_id": 299, "pad_token_id": null, "initializer_range": 0.2
    });
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    let object = object.as_object().unwrap().clone();
    let config = DecoderConfig::from_json(Path::new(family), object).unwrap();
    let path = dir.join(family);
    let options = ExportOptions {
        base_dir: Some(model()),
        ..ExportOptions::default()
    };
    let base = DecoderLm::init(&config, 7, &Device::flex()).unwrap();
    base.export(&path, &options, Overwrite::Refuse).unwrap();
    path
}

fn models(dir: &Path) -> Vec<PathBuf> {
    vec![
        random("llama", json!({"tie_word_embeddings": true}), dir),
        random("phi3", json!({"sliding_window": 9}), dir),
        random("gemma2", json!({"sliding_window": 7}), dir),
    ]
}

/// Losses of the texts, by `lora eval`.
fn example_losses(model: &Path, adapter: Option<&Path>, dir: &Path) -> Vec<f64> {
    let predictions = dir.join("losses.jsonl");
    let mut command = eval_texts(model, &predictions);
    if let Some(adapter) = adapter {
        command.arg("--adapter").arg(adapter);
    }
    succeed(&mut command);
    let text = std::fs::read_to_string(&predictions).unwrap();
    let lines = text.lines();
    let loss = |line: &str| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64();
    lines.map(|line| loss(line).unwrap()).collect()
}

#[test]
fn every_family_trains_evaluates_generates_and_merges_from_the_program() {
    let dir = tempfile::tempdir().unwrap();
    for base in models(dir.path()) {
        let name = base.file_name().unwrap().to_str().unwrap().to_string();
        let run = dir.path().join(format!("{name}-run"));
        let options = [
            "--targets",
            "all-linear",
            "--max-steps",
            "6",
            "--lr",
            "1e-2",
            "--batch-size",
            "4",
        ];
        train(&base, &run, &options);
        let losses = metrics(&run);
        let loss = |step: usize| losses[step]["loss"].as_f64().unwrap();
        assert!(loss(5) < loss(0), "{name}: {} {}", loss(0), loss(5));

        let adapter = run.join("adapter");
        let adapted = example_losses(&base, Some(&adapter), dir.path());
        let merged = dir.path().join(format!("{name}-merged"));
        let mut merge = lora(["merge", "--device", "flex", "--verify"]);
        merge.arg("--model").arg(&base);
        merge.arg("--adapter").arg(run.join("adapter"));
        succeed(merge.arg("--output").arg(&merged));
        let alone = example_losses(&merged, None, dir.path());
        assert!(!alone.is_empty() && alone.len() == adapted.len());
        for (alone, adapted) in alone.iter().zip(&adapted) {
            assert!((alone - adapted).abs() < 1e-4, "{name}: {alone} {adapted}");
        }

        let text = |model: &Path, adapter: bool| {
            let mut generate = lora(["generate", "--device", "flex", "--prompt", "The Mill:"]);
            generate
                .arg("--model")
                .arg(model)
                .args(["--max-new-tokens", "8", "--beams", "2"]);
            if adapter {
                generate.arg("--adapter").arg(run.join("adapter"));
            }
            let output = generate.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(text(&base, true), text(&merged, false), "{name}");
        let inspected = succeed(lora(["inspect"]).arg(&base));
        assert!(inspected.contains(&name), "{inspected}");
    }
}

#[test]
fn a_llama_trains_in_every_way() {
    let dir = tempfile::tempdir().unwrap();
    let base = random("llama", json!({}), dir.path());
    let run = |name: &str, options: &[&str]| {
        let output = dir.path().join(name);
        let always = [
            "--max-steps",
            "3",
            "--lr",
            "1e-2",
            "--batch-size",
            "4",
            "--no-shuffle",
        ];
        train(&base, &output, &[&always, options].concat());
        let losses = metrics(&output);
        losses
            .iter()
            .map(|step| step["loss"].as_f64().unwrap())
            .collect::<Vec<_>>()
    };
    let plain = run("plain", &[]);
    for (name, options, tolerance) in [
        ("packed", &["--packing"][..], 1e-5),
        ("checkpointed", &["--checkpoint-activations"], 1e-5),
        ("nf4", &["--quantize", "nf4"], 0.3),
        ("bf16", &["--base-dtype", "bf16"], 0.02),
        (
            "nf4-int8",
            &["--quantize", "nf4", "--base-dtype", "int8"],
            0.3,
        ),
    ] {
        let found = run(name, options);
        for (found, plain) in found.iter().zip(&plain) {
            assert!((found - plain).abs() < tolerance, "{name}: {found} {plain}");
        }
    }
    for (name, options) in [
        ("dora", &["--dora", "--targets", "all-linear"][..]),
        ("pissa", &["--init", "pissa"]),
        ("head", &["--targets", "q_proj,lm_head,embed_tokens"]),
        ("saved", &["--modules-to-save", "embed_tokens"]),
        (
            "saved-int8",
            &["--modules-to-save", "embed_tokens", "--base-dtype", "int8"],
        ),
        ("full", &["--full"]),
        ("layers", &["--method", "adapter-h"]),
        ("prefix", &["--method", "prefix", "--virtual-tokens", "3"]),
        ("prompt", &["--method", "prompt", "--virtual-tokens", "3"]),
    ] {
        let found = run(name, options);
        assert!(
            found.iter().all(|loss| loss.is_finite()),
            "{name}: {found:?}"
        );
    }
}
