//! An exported model is the model that was exported, with the files that transformers wants.
//!
//! The files that these tests write to `target/tmp/export` are also what `fixtures/check_export.py` loads
//! with transformers and PEFT:
//!
//! ```text
//! cargo test --release --workspace --test it -- export::
//! python lora-models/tests/fixtures/check_export.py target/tmp/export
//! ```

use crate::common::{Batch, TOLERANCE, fill_adapters, fixture, load, model_tensors};
use burn::tensor::Device;
use lora_core::files::Overwrite;
use lora_core::{Adapted, LoraConfig, LoraError, TargetModules, merge};
use lora_models::checkpoint::{Checkpoint, ExportDType, TensorRef, write_safetensors};
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::{ExportOptions, LoadOptions, LoraModel, ModelError, Pretrained, SaveAdapter};
use std::path::{Path, PathBuf};
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host, json};

/// Returns the folder of an export.
fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("export")
        .join(name)
}

fn options(base: &str) -> ExportOptions {
    ExportOptions {
        base_dir: Some(fixture(base)),
        ..ExportOptions::default()
    }
}

/// Exports a model, loads it again, and compares; leaves its logits beside it for Python.
fn round_trip(
    name: &str,
    base: &str,
    model: &Gpt2LmHead,
    options: &ExportOptions,
    tolerance: f32,
) -> (PathBuf, Gpt2Config) {
    let dir = target(name);
    let report = model.export(&dir, options, Overwrite::Replace).unwrap();
    assert_eq!(report.files, [dir.join("model.safetensors")]);
    assert_eq!(
        std::fs::metadata(&report.files[0]).unwrap().len(),
        report.file_bytes
    );

    let device = Device::flex();
    let batch = Batch::of(&model_tensors(base), "right", &device);
    let logits = batch.logits(model);
    let (again, _) = Gpt2LmHead::load(&dir, &LoadOptions::default(), &device).unwrap();
    let again_config = again.config().clone();
    assert_near(
        &host(batch.logits(&again)),
        &host(logits.clone()),
        tolerance,
        name,
    );
    write_expected(&dir, &host(logits), base);
    (dir, again_config)
}

/// The logits, and which of the base's batches they are of.
fn write_expected(dir: &Path, logits: &[f32], base: &str) {
    let logits = TensorRef {
        name: "logits",
        shape: &[3, 9, 300],
        values: logits,
    };
    let path = dir.join("expected_logits.safetensors");
    write_safetensors(path, &[logits], ExportDType::F32).unwrap();
    std::fs::write(dir.join("expected_base.txt"), base).unwrap();
}

#[test]
fn an_unchanged_model_is_exported_as_it_was_loaded() {
    for name in ["gpt2_tied", "gpt2_untied", "gpt2_relu"] {
        let (model, config) = load(name, &Device::flex());
        let (dir, again) = round_trip(name, name, &model, &options(name), 0.0);
        assert_eq!(again, config, "{name}");
        let source = Checkpoint::open(fixture(name)).unwrap();
        let written = Checkpoint::open(&dir).unwrap();
        assert!(source.names().eq(written.names()), "{name}");
        for tensor in source.names() {
            assert_eq!(
                source.read_f32(tensor).unwrap(),
                written.read_f32(tensor).unwrap(),
                "{name}: {tensor}"
            );
        }
        assert_eq!(
            json(&dir.join("config.json")),
            json(&fixture(name).join("config.json")),
            "{name}"
        );
        assert!(dir.join("generation_config.json").is_file());
        assert_eq!(dir.join("tokenizer.json").is_file(), name == "gpt2_tied");
    }
}

#[test]
fn a_merged_adapter_is_exported_in_the_weights() {
    let (model, _) = load("gpt2_tied", &Device::flex());
    let (model, _) = model
        .load_adapter(fixture("adapters/c_attn"))
        .unwrap()
        .into_parts();
    let merged = merge(model).into_module();
    let (dir, again) = round_trip("merged", "gpt2_tied", &merged, &options("gpt2_tied"), 0.0);
    assert!(again.tie_word_embeddings);
    let peft = Tensors::open(fixture("merged_cattn.safetensors"));
    let written = Tensors::open(dir.join("model.safetensors"));
    assert_eq!(written.names(), peft.names());
    for tensor in peft.names() {
        let (expected, shape) = peft.floats(&tensor);
        let (found, found_shape) = written.floats(&tensor);
        assert_eq!(found_shape, shape);
        // A sum of three products, in whatever order.
        assert_near(&found, &expected, 1e-6, &tensor);
    }
}

#[test]
fn a_head_that_became_its_own_is_written_and_said_to_be() {
    let device = Device::flex();
    let (tied, _) = load("gpt2_tied", &device);
    let lora = LoraConfig::new(2).with_targets(TargetModules::names(["lm_head", "wte"]));
    let (model, _) = tied.attach(&lora).unwrap().into_parts();
    let untouched = merge(model.clone()).into_module();
    let (_, again) = round_trip(
        "tied_again",
        "gpt2_tied",
        &untouched,
        &options("gpt2_tied"),
        0.0,
    );
    // B of the head and A of the embedding are zero: the two are still one.
    assert!(again.tie_word_embeddings);

    let mut changed = untouched;
    let head = changed.lm_head.as_mut().unwrap();
    head.weight = head.weight.clone().map(|weight| weight * 1.5 + 0.01);
    let (dir, again) = round_trip(
        "head_untied",
        "gpt2_tied",
        &changed,
        &options("gpt2_tied"),
        0.0,
    );
    assert!(!again.tie_word_embeddings);
    assert!(Checkpoint::open(dir).unwrap().contains("lm_head.weight"));
}

#[test]
fn half_precision_is_written_where_asked_for() {
    for (name, dtype, tolerance) in [
        // Weights of the order of 0.2 keep 11 and 8 bits; logits of the order of 10 follow.
        ("as_f16", ExportDType::F16, 2e-2),
        ("as_bf16", ExportDType::BF16, 2e-1),
    ] {
        let (model, _) = load("gpt2_tied", &Device::flex());
        let options = ExportOptions {
            dtype,
            base_dir: None,
            ..ExportOptions::default()
        };
        let (dir, _) = round_trip(name, "gpt2_tied", &model, &options, tolerance);
        let file = json(&dir.join("config.json"));
        assert_eq!(file["dtype"], dtype.torch_name());
        assert!(!dir.join("tokenizer.json").exists());
    }
}

#[test]
fn adapters_are_left_beside_the_exports_for_python() {
    let device = Device::flex();
    for (name, base) in [("all_linear", "gpt2_tied"), ("head_embed", "gpt2_untied")] {
        let (model, _) = load(base, &device);
        let (model, report) = model
            .load_adapter(fixture("adapters").join(name))
            .unwrap()
            .into_parts();
        let dir = target(&format!("adapter_{name}"));
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&dir, Some(base), Overwrite::Replace)
            .unwrap();
        let batch = Batch::of(&model_tensors(base), "right", &device);
        let logits = host(batch.logits(&model));
        let expected = Tensors::open(fixture("adapters").join(format!("{name}.safetensors")));
        assert_near(&logits, &expected.floats("logits").0, TOLERANCE, name);
        write_expected(&dir, &logits, base);
    }
}

/// PEFT's behaviour on a tied model: an adapter on one end leaves the other unchanged.
#[test]
fn adapters_on_both_ends_of_a_tied_model_are_left_for_python_too() {
    let device = Device::flex();
    for (name, targets) in [
        ("adapter_tied_wte", vec!["wte", "c_attn"]),
        ("adapter_tied_head", vec!["lm_head", "c_fc"]),
        ("adapter_tied_both", vec!["wte", "lm_head"]),
    ] {
        let (model, _) = load("gpt2_tied", &device);
        let lora = LoraConfig::new(2).with_targets(TargetModules::names(targets));
        let (model, report) = model.attach(&lora).unwrap().into_parts();
        let model = fill_adapters(model);
        let dir = target(name);
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&dir, Some("gpt2_tied"), Overwrite::Replace)
            .unwrap();
        let batch = Batch::of(&model_tensors("gpt2_tied"), "right", &device);
        let logits = host(batch.logits(&model));
        let (again, _) = load("gpt2_tied", &device)
            .0
            .load_adapter(&dir)
            .unwrap()
            .into_parts();
        assert_eq!(host(batch.logits(&again)), logits, "{name}");
        write_expected(&dir, &logits, "gpt2_tied");
    }
}

#[test]
fn a_model_with_adapters_is_not_exported() {
    let (model, _) = load("gpt2_tied", &Device::flex());
    let lora = LoraConfig::new(2).with_targets(TargetModules::names(["c_attn"]));
    let (model, _) = model.attach(&lora).unwrap().into_parts();
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("export");
    let refused = model.export(&dir, &ExportOptions::default(), Overwrite::Refuse);
    match refused {
        Err(ModelError::Export { message, .. }) => {
            assert!(message.contains("transformer.h.0.attn.c_attn"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!dir.exists());
}

#[test]
fn what_is_there_is_not_overwritten_unless_asked() {
    let (model, _) = load("gpt2_relu", &Device::flex());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let export = |overwrite| model.export(dir.path(), &ExportOptions::default(), overwrite);
    assert!(matches!(
        export(Overwrite::Refuse),
        Err(ModelError::Lora(LoraError::AlreadyExists { .. }))
    ));
    assert!(dir.path().join("notes.txt").is_file());
    export(Overwrite::Replace).unwrap();
    assert!(!dir.path().join("notes.txt").exists());
}
