//! QLoRA from the program: adapters trained, used and merged over quantized weights.

use crate::common::encoders::{
    data as labelled, encoder, eval, learn, lines, numbers, outcome, predict,
};
use crate::common::{adapter, eval_texts, fail, lora, losses, model, succeed, texts, train};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor};
use lora_core::{LoraConfig, LoraInit, Quantization, QuantizeConfig, TargetModules, merge};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{LoadOptions, LoraModel, Pretrained};
use lora_train::trainer::AdamW;
use std::path::Path;

fn example_losses(model: &Path, options: &[&str], adapter: Option<&Path>, dir: &Path) -> Vec<f64> {
    let file = dir.join("predictions.jsonl");
    let mut command = eval_texts(model, &file);
    command.args(options);
    if let Some(adapter) = adapter {
        command.arg("--adapter").arg(adapter);
    }
    succeed(&mut command);
    let lines = lines(&file);
    lines
        .iter()
        .map(|line| line["loss"].as_f64().unwrap())
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn far(a: &[f64], b: &[f64]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max)
}

#[test]
fn an_adapter_trains_over_quantized_weights_and_merges_into_the_floats() {
    let dir = tempfile::tempdir().unwrap();
    let floats = example_losses(&model(), &[], None, dir.path());
    for (kind, options) in [
        ("nf4", vec!["--rank", "2"]),
        ("int8", vec!["--rank", "2", "--dora", "--dropout", "0.1"]),
        ("nf4", vec!["--rank", "2", "--init", "pissa"]),
        ("int8", vec!["--bitfit"]),
    ] {
        let what = format!("{kind} {options:?}");
        let out = dir.path().join(what.replace(['"', ' ', '[', ']', ','], ""));
        let mut command = train(&texts(), &out);
        command.args(["--quantize", kind]).args(&options);
        command.args(["--max-steps", "12", "--lr", "2e-2", "--merge"]);
        let text = succeed(&mut command);
        assert!(text.contains("8 quantized modules"), "{text}");
        assert!(text.contains("transformer.h.1.mlp.c_fc [24, 96]"), "{text}");
        let recipe = std::fs::read_to_string(out.join("recipe.toml")).unwrap();
        assert!(
            recipe.contains(&format!("quantize = \"{kind}\"")),
            "{recipe}"
        );

        // The file is of the adapter alone.
        let weights = out.join("adapter");
        let names = adapter(&weights).into_iter().map(|(name, ..)| name);
        assert!(names.clone().count() > 0);
        assert!(
            names.clone().all(|name| !name.contains("packed")),
            "{:?}",
            names.collect::<Vec<_>>()
        );

        let base = example_losses(&model(), &["--quantize", kind], None, dir.path());
        assert!(far(&base, &floats) > 1e-4, "{what}");
        let with = example_losses(&model(), &["--quantize", kind], Some(&weights), dir.path());
        assert!(mean(&with) < mean(&base) - 0.1, "{what}");
        // Merged is what the adapter is on the model in floats.
        let on_floats = example_losses(&model(), &[], Some(&weights), dir.path());
        let merged = example_losses(&out.join("merged"), &[], None, dir.path());
        assert!(far(&merged, &on_floats) < 1e-4, "{what}");
        assert!(far(&merged, &with) > 1e-4, "{what}");
    }
}

#[test]
fn the_recipe_repeats_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let mut command = train(&texts(), &first);
    succeed(command.args([
        "--quantize",
        "int8",
        "--rank",
        "2",
        "--max-steps",
        "5",
        "--lr",
        "1e-2",
    ]));
    let mut again = lora(["train"]);
    succeed(
        again
            .arg(first.join("recipe.toml"))
            .arg("--output")
            .arg(&second),
    );
    assert_eq!(losses(&first), losses(&second));
    // With it and without it are two runs.
    let mut other = lora(["train", "--resume", "--quantize", "nf4"]);
    fail(other.arg(first.join("recipe.toml")), 1, &["quantize"]);
}

#[test]
fn generation_goes_through_the_quantized_weights() {
    let text = |options: &[&str]| {
        let mut command = lora(["generate", "--device", "flex", "--max-new-tokens", "12"]);
        command
            .arg("--model")
            .arg(model())
            .args(["--prompt", "The Eagle"]);
        succeed(command.args(options))
    };
    assert!(text(&["--quantize", "nf4"]).starts_with("The Eagle"));
    fail(
        lora(["generate", "--quantize", "fp4", "--prompt", "a", "--model"]).arg(model()),
        2,
        &["fp4", "nf4 or int8"],
    );
}

#[test]
fn classifiers_of_every_family_train_and_predict_over_quantized_weights() {
    let dir = tempfile::tempdir().unwrap();
    for (family, kind) in [
        ("bert", "nf4"),
        ("roberta", "int8"),
        ("deberta", "int8"),
        ("v2", "nf4"),
    ] {
        let model = encoder(family, dir.path());
        let out = dir.path().join(family);
        let mut command = learn(&model, &labelled("texts.jsonl"), &out);
        command.args(["--quantize", kind, "--rank", "2", "--max-steps", "4"]);
        let done = outcome(&mut command);
        assert_eq!(done["steps"], 4, "{family}");
        let weights = out.join("adapter");
        let logits = |options: &[&str]| {
            let file = dir.path().join("predictions.jsonl");
            let mut command = eval(&model, &labelled("texts.jsonl"));
            command.arg("--adapter").arg(&weights).args(options);
            succeed(command.arg("--overwrite").arg("--predictions").arg(&file));
            let lines = lines(&file);
            lines
                .iter()
                .flat_map(|line| numbers(&line["logits"]))
                .collect::<Vec<f64>>()
        };
        assert!(
            far(&logits(&[]), &logits(&["--quantize", kind])) > 1e-6,
            "{family}"
        );
        let mut command = predict(&model);
        command
            .arg("--adapter")
            .arg(&weights)
            .args(["--quantize", kind, "--text", "a b"]);
        assert!(succeed(&mut command).contains('\t'), "{family}");
        // An adapter that is gone on with has its own head, which stays in floats.
        let again = dir.path().join(format!("{family}-again"));
        let mut command = learn(&model, &labelled("texts.jsonl"), &again);
        command.arg("--adapter").arg(&weights);
        command.args(["--quantize", kind, "--max-steps", "2"]);
        assert_eq!(outcome(&mut command)["steps"], 2, "{family}");
    }
}

#[test]
fn what_has_no_frozen_weights_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = train(&texts(), &dir.path().join("out"));
    fail(
        command.args(["--full", "--quantize", "nf4"]),
        2,
        &["quantize", "--full"],
    );
    let mut command = train(&texts(), &dir.path().join("out"));
    // Named as one that trains whole, it is left in floats.
    command.args([
        "--quantize",
        "nf4",
        "--modules-to-save",
        "mlp.c_fc",
        "--max-steps",
        "1",
    ]);
    let text = succeed(&mut command);
    assert!(text.contains("6 quantized modules"), "{text}");
}

/// Losses of some steps of AdamW on one batch.
fn trajectory(model: Gpt2LmHead, device: &Device) -> Vec<f32> {
    let lora = LoraConfig::new(3)
        .with_alpha(5.0)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["c_attn", "c_fc"]));
    let (mut model, _) = model.attach(&lora).unwrap().into_parts();
    let mut optimizer = AdamW::default().init(&model);
    let ids = Tensor::<1, Int>::arange(0..22, device) * 13 + 5;
    let ids = ids.reshape([2, 11]);
    let targets = ids.clone().narrow(1, 1, 10).reshape([20, 1]);
    let mut losses = Vec::new();
    for _ in 0..12 {
        let logits = model.forward(ids.clone(), None).narrow(1, 0, 10);
        let loss = log_softmax(logits.reshape([20, 300]), 1)
            .gather(1, targets.clone())
            .mean()
            .neg();
        losses.push(loss.clone().into_scalar::<f32>());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-2, model, grads);
    }
    losses
}

#[test]
fn losses_are_those_over_the_dequantized_weights() {
    let device = Device::flex().autodiff();
    for quantization in Quantization::ALL {
        let load = || {
            Gpt2LmHead::load(model(), &LoadOptions::default(), &device)
                .unwrap()
                .0
        };
        let (packed, _) = load().quantize(&QuantizeConfig::new(quantization)).unwrap();
        let dense = merge(packed.clone()).into_module();
        assert_eq!(dense.num_params(), load().num_params());
        let packed = trajectory(packed, &device);
        let dense = trajectory(dense, &device);
        assert!(packed[11] < packed[0] - 0.5, "{packed:?}");
        for (packed, dense) in packed.iter().zip(&dense) {
            // Sums may be taken in another order, and twelve steps of AdamW go on from there.
            assert!((packed - dense).abs() < 1e-4, "{packed} {dense}");
        }
    }
}
