//! `--base-dtype`: frozen weights in 16 bits, from the program.

use crate::common::{adapter, eval_texts, fail, lora, losses, model, succeed, texts, train};
use burn::tensor::{Device, Int, Tensor};
use lora_core::files::Overwrite;
use lora_core::ops::CrossEntropy;
use lora_core::{BaseDType, BaseFloats, LoraConfig, TargetModules};
use lora_models::checkpoint::ExportDType;
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::{
    CausalInput, CausalLm, ExportOptions, LoadOptions, LoraModel, Preset, Pretrained,
};
use lora_train::memory::{allocated, peak_allocated, restart_peak};
use lora_train::tools::bench::{Shape, Training};
use lora_train::tools::{PlanOptions, estimate};
use std::path::{Path, PathBuf};
use test_support::process::passed_alone;

/// The fixture model in 16 bits, with its tokenizer.
fn in_16_bits(dtype: &str, dir: &Path) -> PathBuf {
    let path = dir.join(format!("model-{dtype}"));
    let mut command = lora(["merge", "--device", "flex", "--dtype", dtype, "--model"]);
    succeed(command.arg(model()).arg("--output").arg(&path));
    path
}

fn run(model: &Path, options: &[&str], output: &Path) -> String {
    let mut command = lora(["train", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(model).arg("--data").arg(texts());
    command.arg("--output").arg(output);
    command.args([
        "--rank",
        "2",
        "--max-steps",
        "8",
        "--lr",
        "2e-2",
        "--dropout",
        "0.1",
    ]);
    succeed(command.args(options))
}

fn example_losses(model: &Path, options: &[&str], adapter: &Path, dir: &Path) -> String {
    let file = dir.join("predictions.jsonl");
    let mut command = eval_texts(model, &file);
    succeed(command.arg("--adapter").arg(adapter).args(options));
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn a_run_over_16_bits_is_bit_for_bit_the_run_over_the_same_checkpoint_in_f32() {
    let dir = tempfile::tempdir().unwrap();
    for (dtype, options) in [
        ("bf16", vec![]),
        ("f16", vec!["--dora"]),
        ("f16", vec!["--init", "pissa"]),
        ("bf16", vec!["--targets", "c_attn,wte,lm_head"]),
        ("f16", vec!["--bias", "all", "--checkpoint-activations"]),
    ] {
        let what = format!("{dtype}{}", options.join(""));
        let model = in_16_bits(dtype, dir.path());
        let [wide, auto] = ["f32", "auto"].map(|base| {
            let output = dir
                .path()
                .join(format!("{what}-{base}").replace(['/', ','], ""));
            let mut options = options.clone();
            options.extend(["--base-dtype", base, "--merge"]);
            let text = run(&model, &options, &output);
            let reported = format!(" {dtype}: ");
            assert_eq!(text.contains(&reported), base == "auto", "{text}");
            let recipe = std::fs::read_to_string(output.join("recipe.toml")).unwrap();
            assert!(
                recipe.contains(&format!("base_dtype = \"{base}\"")),
                "{recipe}"
            );
            output
        });
        assert_eq!(losses(&wide), losses(&auto), "{what}");
        let weights = |output: &Path| adapter(&output.join("adapter"));
        assert_eq!(weights(&wide), weights(&auto), "{what}");
        assert!(
            weights(&auto)
                .iter()
                .all(|(name, ..)| !name.contains("packed"))
        );
        let merged =
            |output: &Path| std::fs::read(output.join("merged/model.safetensors")).unwrap();
        assert_eq!(merged(&wide), merged(&auto), "{what}");
        let loss = |base| {
            let options = ["--base-dtype", base, "--strict-base"];
            example_losses(&model, &options, &auto.join("adapter"), dir.path())
        };
        assert_eq!(loss("f32"), loss("auto"), "{what}");
        std::fs::remove_dir_all(&model).unwrap();
    }
}

#[test]
fn a_run_is_resumed_over_16_bits_and_its_recipe_repeats_it() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let base = ["--base-dtype", "bf16", "--save-steps", "4"];
    run(&model(), &base, &whole);
    let part = dir.path().join("part");
    let mut command = train(&texts(), &part);
    command.args([
        "--rank",
        "2",
        "--lr",
        "2e-2",
        "--dropout",
        "0.1",
        "--max-steps",
        "8",
    ]);
    succeed(command.args(base));
    // As if it had been stopped after its first checkpoint.
    let checkpoints = part.join("checkpoints");
    let mut steps: Vec<PathBuf> = std::fs::read_dir(&checkpoints)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    steps.sort();
    assert!(!steps.is_empty());
    let mut again = lora(["train", "--resume"]);
    succeed(again.arg(part.join("recipe.toml")));
    let weights = |output: &Path| adapter(&output.join("adapter"));
    assert_eq!(weights(&part), weights(&whole));
    // In f32 it would be another run.
    let mut other = lora(["train", "--resume", "--base-dtype", "f32"]);
    fail(other.arg(part.join("recipe.toml")), 1, &["base_dtype"]);
}

#[test]
fn a_base_in_f32_is_rounded_and_merged_in_f32() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let text = run(&model(), &["--base-dtype", "f16", "--merge"], &output);
    assert!(text.contains("9 modules in 16 bits"), "{text}");
    let weights = output.join("adapter");
    // The merge is of the weights in f32, as with --quantize.
    let merged = dir.path().join("merged");
    let mut command = lora(["merge", "--device", "flex", "--model"]);
    command.arg(model()).arg("--adapter").arg(&weights);
    succeed(command.arg("--output").arg(&merged));
    let bytes = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    assert_eq!(bytes(&merged), bytes(&output.join("merged")));
    // Merged from rounded weights it is another model; from exact ones the same.
    let merge = |model: &Path, base: &str| {
        let merged = dir.path().join(format!("merged-{base}"));
        let mut command = lora(["merge", "--device", "flex", "--overwrite", "--model"]);
        command.arg(model).arg("--adapter").arg(&weights);
        command
            .args(["--base-dtype", base, "--output"])
            .arg(&merged);
        succeed(&mut command);
        bytes(&merged)
    };
    assert_ne!(merge(&model(), "f16"), bytes(&merged));
    let narrow = in_16_bits("f16", dir.path());
    assert_eq!(merge(&narrow, "auto"), merge(&narrow, "f32"));
}

#[test]
fn texts_are_generated_and_labels_predicted_over_16_bits() {
    let dir = tempfile::tempdir().unwrap();
    let narrow = in_16_bits("bf16", dir.path());
    let text = |base: &str| {
        let mut command = lora(["generate", "--device", "flex", "--max-new-tokens", "12"]);
        command.arg("--model").arg(&narrow);
        succeed(command.args(["--prompt", "The Eagle", "--base-dtype", base]))
    };
    assert_eq!(text("auto"), text("f32"));
    fail(
        lora(["generate", "--base-dtype", "f8", "--prompt", "a", "--model"]).arg(model()),
        2,
        &["f8", "f32, f16, bf16, int8 or auto"],
    );
}

#[test]
fn what_has_no_frozen_weights_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = train(&texts(), &dir.path().join("out"));
    fail(
        command.args(["--full", "--base-dtype", "bf16"]),
        2,
        &["base_dtype", "--full"],
    );
    // Named as one that trains whole, it stays in f32; and so does `wte` if it is trained.
    let output = dir.path().join("saved");
    let options = ["--base-dtype", "bf16", "--modules-to-save", "mlp.c_fc"];
    let text = run(&model(), &options, &output);
    assert!(text.contains("7 modules in 16 bits"), "{text}");
}

#[test]
fn a_plan_counts_the_bytes_of_16_bits() {
    let mib = |base_dtype, quantize| {
        let shape = Shape {
            preset: Some(Preset::Gpt2),
            base_dtype,
            quantize,
            ..Shape::default()
        };
        estimate(&PlanOptions {
            shape,
            training: Training::default(),
            no_calibration: true,
            ..PlanOptions::default()
        })
        .unwrap()
        .weights_mib
    };
    let floats = mib(None, None);
    let halves = mib(Some(BaseDType::Bf16), None);
    // 324.0 MiB of linear layers and 147.2 of the token embedding.
    assert!((floats - halves - (324.0 + 147.2) / 2.0).abs() < 0.2);
    let nf4 = mib(None, Some(lora_core::Quantization::Nf4));
    let both = mib(Some(BaseDType::F16), Some(lora_core::Quantization::Nf4));
    assert!((nf4 - both - 147.2 / 2.0).abs() < 0.2);
}

#[test]
fn a_prefix_is_trained_and_used_over_16_bits() {
    let dir = tempfile::tempdir().unwrap();
    let narrow = in_16_bits("bf16", dir.path());
    let [wide, auto] = ["f32", "auto"].map(|base| {
        let output = dir.path().join(base);
        let mut command = lora(["train", "--device", "flex", "--max-length", "48"]);
        command
            .arg("--model")
            .arg(&narrow)
            .arg("--data")
            .arg(texts());
        command.args(["--prefix", "3", "--prefix-only", "--max-steps", "4"]);
        command.args(["--lr", "2e-2", "--base-dtype", base, "--output"]);
        succeed(command.arg(&output));
        output
    });
    assert_eq!(losses(&wide), losses(&auto));
    let loss = |base| {
        let options = ["--base-dtype", base];
        example_losses(&narrow, &options, &auto.join("adapter"), dir.path())
    };
    assert_eq!(loss("f32"), loss("auto"));
}

const VOCAB: usize = 24_000;
const WIDTH: usize = 256;
const SEQ: usize = 32;

/// Peak of the memory beyond the start, while a model is loaded, and while it makes a step.
fn peaks(path: &Path, dtype: BaseDType) -> [usize; 2] {
    let device = Device::flex().autodiff();
    restart_peak();
    let start = allocated().unwrap();
    let options = LoadOptions::default().with_floats(BaseFloats::new(dtype));
    let (model, _) = Gpt2LmHead::load(path, &options, &device).unwrap();
    let loaded = peak_allocated().unwrap() - start;
    let config = LoraConfig::new(2).with_targets(TargetModules::names(["c_fc"]));
    let model = model.attach(&config).unwrap().into_module();
    let ids = Tensor::<1, Int>::arange(0..SEQ as i64, &device) * 700;
    let step = || {
        let input = CausalInput::new(ids.clone().unsqueeze());
        let hidden = model.hidden_states(&input).reshape([SEQ, WIDTH]);
        let found = model.loss(hidden, ids.clone(), &CrossEntropy::default());
        drop(found.loss.backward());
    };
    step();
    restart_peak();
    let before = allocated().unwrap();
    step();
    [loaded, peak_allocated().unwrap() - before]
}

#[test]
fn a_mapped_checkpoint_in_16_bits_is_neither_copied_nor_widened() {
    if passed_alone("halves::a_mapped_checkpoint_in_16_bits_is_neither_copied_nor_widened") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let config = Gpt2Config {
        vocab_size: VOCAB,
        n_positions: SEQ,
        n_embd: WIDTH,
        n_layer: 1,
        n_head: 4,
        ..Gpt2Config::default()
    };
    let model = Gpt2LmHead::init(&config, 1, &Device::flex()).unwrap();
    let export = ExportOptions {
        dtype: ExportDType::BF16,
        ..ExportOptions::default()
    };
    model.export(&path, &export, Overwrite::Refuse).unwrap();
    drop(model);
    let embedding = 4 * VOCAB * WIDTH;
    let [wide, step] = peaks(&path, BaseDType::F32);
    assert!(wide > embedding, "{wide}");
    // Positions, norms and biases are in f32: 32 rows and few more.
    let [loaded, with_parts] = peaks(&path, BaseDType::Auto);
    assert!(loaded < 1 << 18, "{loaded}");
    // One part of the output layer at a time, and a layer's weight.
    let most = step + (16 << 20) + 4 * 4 * WIDTH * WIDTH;
    assert!(with_parts < most, "{with_parts} of {most}, {step}");
}
