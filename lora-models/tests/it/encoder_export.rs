//! An exported encoder is the model that was exported, in the files that transformers wrote.
//!
//! The files that these tests write to `target/tmp/encoder_export` are also what
//! `fixtures/encoders/check_export.py` loads with transformers and PEFT:
//!
//! ```text
//! cargo test --release --workspace --test it -- encoder_export::
//! python lora-models/tests/fixtures/encoders/check_export.py target/tmp/encoder_export
//! ```

use crate::common::fill_adapters;
use crate::encoders::{
    ADAPTERS, Batch, CHECKPOINTS, TOLERANCE, adapter, encoder, expected_of_adapter, load,
    logits_on, model, options,
};
use burn::tensor::Device;
use lora_core::files::Overwrite;
use lora_core::{Adapted, LoraConfig, TargetModules, merge};
use lora_models::checkpoint::{Checkpoint, ExportDType, TensorRef, write_safetensors};
use lora_models::classifier::{Classifier, ClassifierOptions};
use lora_models::encoder::Labels;
use lora_models::{ExportOptions, LoraModel, ModelError, Pretrained, SaveAdapter};
use std::path::{Path, PathBuf};
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, json};

/// Returns the folder of an export.
fn target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("encoder_export")
        .join(name)
}

/// Exports a model, loads it again with the head that it has, and compares on the batch of `base`;
/// leaves its logits beside it for Python.
fn round_trip(name: &str, base: &str, model: &Classifier, dtype: ExportDType) -> PathBuf {
    let dir = target(name);
    let options = ExportOptions {
        dtype,
        base_dir: None,
        ..ExportOptions::default()
    };
    let report = model.export(&dir, &options, Overwrite::Replace).unwrap();
    assert_eq!(report.files, [dir.join("model.safetensors")], "{name}");
    let head = ClassifierOptions {
        head: model.kind(),
        ..ClassifierOptions::default()
    };
    let (again, report) = Classifier::load(&dir, &head, &Device::flex()).unwrap();
    assert!(
        again.random_modules().is_empty() && report.ignored.is_empty(),
        "{name}"
    );
    assert_eq!(again.config().labels, model.config().labels, "{name}");
    let logits = logits_on(model, base);
    let found = logits_on(&again, base);
    match dtype {
        ExportDType::F32 => assert_eq!(found, logits, "{name}"),
        // Weights of the order of 1 keep 11 bits.
        _ => assert_near(&found, &logits, 5e-2, name),
    }
    write_expected(&dir, model, &found, base);
    dir
}

/// Logits, and which of the fixtures' batches they are of.
fn write_expected(dir: &Path, model: &Classifier, logits: &[f32], base: &str) {
    let outputs = model.config().labels.outputs();
    let logits = TensorRef {
        name: "logits",
        shape: &[logits.len() / outputs, outputs],
        values: logits,
    };
    let path = dir.join("expected_logits.safetensors");
    write_safetensors(path, &[logits], ExportDType::F32).unwrap();
    std::fs::write(dir.join("expected_base.txt"), base).unwrap();
}

#[test]
fn an_unchanged_model_is_exported_as_transformers_wrote_it() {
    for &name in CHECKPOINTS {
        let model = model(name, &Device::flex());
        let dir = round_trip(name, name, &model, ExportDType::F32);
        let written = Tensors::open(dir.join("model.safetensors"));
        let original = Tensors::open(encoder(name).join("model.safetensors"));
        assert_eq!(written.names(), original.names(), "{name}");
        for tensor in original.names() {
            let what = format!("{name}: {tensor}");
            assert_eq!(written.floats(&tensor), original.floats(&tensor), "{what}");
        }
        let written = json(&dir.join("config.json"));
        let mut original = json(&encoder(name).join("config.json"));
        if model.config().labels == Labels::Score {
            // Said outright, where transformers goes by the number of labels.
            original["problem_type"] = "regression".into();
        }
        assert_eq!(written, original, "{name}");
    }
}

#[test]
fn merged_adapters_are_exported_in_the_weights_and_heads() {
    let device = Device::flex();
    for &(name, base) in ADAPTERS {
        let (model, _) = model(base, &device)
            .load_adapter(adapter(name))
            .unwrap()
            .into_parts();
        let merged = merge(model).into_module();
        let dir = round_trip(&format!("merged_{name}"), base, &merged, ExportDType::F32);
        let expected = expected_of_adapter(name).floats("logits");
        let batch = Batch::of_model(base, &device);
        batch.assert_rows(&logits_on(&merged, base), &expected, TOLERANCE, name);
        let original = Tensors::open(encoder(base).join("model.safetensors"));
        let written = Tensors::open(dir.join("model.safetensors"));
        assert_eq!(written.names(), original.names(), "{name}");
        for tensor in original.names() {
            let (_, shape) = written.floats(&tensor);
            assert_eq!(shape, original.floats(&tensor).1, "{name}: {tensor}");
        }
    }
}

/// Bare, old and pretraining checkpoints become classifiers with today's names and nothing left over.
#[test]
fn other_forms_are_exported_as_classifiers_with_their_labels() {
    let device = Device::flex();
    for (form, like, class) in [
        ("bert_bare", "bert_reg", "BertForSequenceClassification"),
        ("bert_old", "bert_reg", "BertForSequenceClassification"),
        ("bert_mlm", "bert_tok", "BertForTokenClassification"),
        (
            "roberta_mlm",
            "roberta_reg",
            "RobertaForSequenceClassification",
        ),
        ("xlmr_mlm", "xlmr_tok", "XLMRobertaForTokenClassification"),
        (
            "deberta_published",
            "deberta_tok",
            "DebertaForTokenClassification",
        ),
        (
            "v3_published",
            "v3_reg",
            "DebertaV2ForSequenceClassification",
        ),
    ] {
        let labels = Labels::Classes(["no", "maybe", "yes", "later"].map(String::from).to_vec());
        let options = ClassifierOptions {
            labels: Some(labels),
            ..options(like)
        };
        let (model, _) = Classifier::load(encoder(form), &options, &device).unwrap();
        let dir = round_trip(&format!("form_{form}"), form, &model, ExportDType::F32);
        let config = json(&dir.join("config.json"));
        assert_eq!(config["architectures"], serde_json::json!([class]));
        assert_eq!(
            config["id2label"],
            serde_json::json!({"0": "no", "1": "maybe", "2": "yes", "3": "later"})
        );
        assert_eq!(config["label2id"]["later"], 3);
        assert!(
            config
                .get("problem_type")
                .is_none_or(serde_json::Value::is_null)
        );
        let written = Checkpoint::open(&dir).unwrap();
        let like = Checkpoint::open(encoder(like)).unwrap();
        assert_eq!(
            written.names().collect::<Vec<_>>(),
            like.names().collect::<Vec<_>>()
        );
        for name in like.names() {
            let (found, expected) = (written.shape(name).unwrap(), like.shape(name).unwrap());
            // Four labels instead of the other's.
            let is_projection = found.first() == Some(&4) && name.starts_with("classifier");
            assert!(
                found == expected || is_projection,
                "{form}: {name} {found:?}"
            );
        }
    }
}

#[test]
fn half_precision_is_written_where_asked_for() {
    for name in ["roberta_seq", "xl_seq"] {
        let model = model(name, &Device::flex());
        let dir = round_trip(&format!("f16_{name}"), name, &model, ExportDType::F16);
        assert_eq!(json(&dir.join("config.json"))["dtype"], "float16");
    }
}

#[test]
fn adapters_are_left_beside_the_exports_for_python() {
    let device = Device::flex();
    for &(name, base) in ADAPTERS {
        let (model, report) = model(base, &device)
            .load_adapter(adapter(name))
            .unwrap()
            .into_parts();
        let dir = target(&format!("adapter_{name}"));
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&dir, Some(base), Overwrite::Replace)
            .unwrap();
        let logits = logits_on(&model, base);
        let batch = Batch::of_model(base, &device);
        let expected = expected_of_adapter(name).floats("logits");
        batch.assert_rows(&logits, &expected, TOLERANCE, name);
        write_expected(&dir, &model, &logits, base);
    }
}

/// Adapters that this crate attaches by itself: to bases that lack head and pooler, and to slices.
#[test]
fn adapters_of_this_crate_s_own_are_left_for_python_too() {
    let device = Device::flex();
    for (name, base, targets) in [
        ("own_bert", "bert_mlm", vec!["query", "value"]),
        ("own_roberta", "roberta_mlm", vec!["query", "value"]),
        ("own_v3", "v3_mlm", vec!["query_proj", "value_proj"]),
        (
            "own_slices",
            "deberta_seq",
            vec!["in_proj[q,v]", "pos_proj"],
        ),
    ] {
        let (model, _) = load(base, &device);
        let config = LoraConfig::new(2).with_targets(TargetModules::names(targets));
        let (model, report) = model.attach(&config).unwrap().into_parts();
        let model = fill_adapters(model);
        let dir = target(&format!("adapter_{name}"));
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&dir, Some(base), Overwrite::Replace)
            .unwrap();
        write_expected(&dir, &model, &logits_on(&model, base), base);
    }
}

#[test]
fn a_model_with_adapters_is_not_exported() {
    let device = Device::flex();
    for (name, base, module) in [
        ("bert_default", "bert_seq", "attention.self_attn.query"),
        ("xlmr_words", "xlmr_tok", "word_embeddings"),
    ] {
        let (model, _) = model(base, &device)
            .load_adapter(adapter(name))
            .unwrap()
            .into_parts();
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("export");
        match model.export(&dir, &ExportOptions::default(), Overwrite::Refuse) {
            Err(ModelError::Export { message, .. }) => {
                assert!(message.contains(module), "{message}");
            }
            other => panic!("{other:?}"),
        }
        assert!(!dir.exists());
    }
}
