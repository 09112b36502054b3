//! Encoders with their heads compute what transformers computes, from every form of their files,
//! and refuse files that are not their own.

use crate::encoders::{
    Batch, CHECKPOINTS, TOLERANCE, changed, encoder, expected, load, logits_on, loss, model,
    options,
};
use burn::tensor::Device;
use lora_models::checkpoint::LoadReport;
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind};
use lora_models::encoder::{EncoderConfig, Labels};
use lora_models::{ModelError, Pretrained};
use std::collections::BTreeMap;
use std::path::Path;
use test_support::compare::assert_near;
use test_support::tensors::{host, json};

#[test]
fn hidden_states_logits_and_loss_are_those_of_transformers() {
    let device = Device::flex();
    for &name in CHECKPOINTS {
        let model = model(name, &device);
        let expected = expected(name);
        let batch = Batch::of(&expected, &device);
        let hidden = host(batch.hidden(&model));
        let what = format!("{name}, hidden states");
        batch.assert_rows(&hidden, &expected.floats("hidden"), TOLERANCE, &what);
        let logits = batch.logits(&model);
        let what = format!("{name}, logits");
        batch.assert_rows(
            &host(logits.clone()),
            &expected.floats("logits"),
            TOLERANCE,
            &what,
        );
        let is_score = model.config().labels == Labels::Score;
        assert_eq!(is_score, name.ends_with("_reg"), "{name}");
        let loss = host(loss(logits, &expected, is_score));
        assert_near(
            &loss,
            &expected.floats("loss").0,
            TOLERANCE,
            &format!("{name}, loss"),
        );
    }
}

#[test]
fn labels_are_those_of_the_configuration() {
    let labels = |name: &str| EncoderConfig::from_dir(encoder(name)).unwrap().labels;
    let classes = |names: &[&str]| Labels::Classes(names.iter().map(|n| n.to_string()).collect());
    let three = classes(&["entailment", "neutral", "contradiction"]);
    assert_eq!(labels("deberta_seq"), three);
    assert_eq!(labels("v3_reg"), Labels::Score);
    let tags = classes(&["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]);
    assert_eq!(labels("roberta_tok"), tags);
}

/// A row alone has the logits that it has beside longer ones: padding is seen by nothing, neither the
/// attention nor the convolution nor positions.
#[test]
fn padding_changes_nothing() {
    let device = Device::flex();
    for &name in CHECKPOINTS {
        let model = model(name, &device);
        let batch = Batch::of_model(name, &device);
        let [rows, seq] = batch.ids.dims();
        let hidden = host(batch.hidden(&model));
        let d = hidden.len() / (rows * seq);
        for row in 0..rows {
            let alone = host(batch.row(row).hidden(&model));
            let padded = &hidden[row * seq * d..][..alone.len()];
            // The same sums, but for zeros and the order of products.
            assert_near(padded, &alone, 1e-5, &format!("{name}, row {row}"));
        }
    }
}

#[test]
fn segments_are_zero_where_none_are_given_and_passed_over_where_there_are_none() {
    let device = Device::flex();
    for &name in CHECKPOINTS {
        let model = model(name, &device);
        let batch = Batch::of_model(name, &device);
        let (ids, mask) = (batch.ids.clone(), batch.mask.clone());
        let without = host(model.forward(ids.clone(), &mask, None));
        let zeros = host(model.forward(ids.clone(), &mask, Some(ids.zeros_like())));
        assert_eq!(without, zeros, "{name}");
        let with = host(batch.logits(&model));
        let matters = model.config().type_vocab_size > 1;
        assert_eq!(with != without, matters, "{name}");
    }
}

/// Ignored tensors by reason.
fn ignored(report: &LoadReport) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for tensor in &report.ignored {
        *reasons.entry(tensor.reason.as_str()).or_default() += 1;
    }
    reasons
}

#[test]
fn bare_old_and_pretraining_checkpoints_give_their_encoder() {
    const PRETRAINING: &str = "head of the pretraining";
    const POOLER: &str = "pooler, which this head does not use";
    const BUFFER: &str = "buffer of positions or segments";
    let device = Device::flex();
    for (name, fresh, left) in [
        ("bert_bare", vec!["classifier"], vec![]),
        // A transform of four and a decoder of two tensors, its bias once more, and two of the next sentence.
        (
            "bert_old",
            vec!["classifier"],
            vec![(PRETRAINING, 9), (BUFFER, 1)],
        ),
        (
            "bert_mlm",
            vec!["classifier", "pooler"],
            vec![(PRETRAINING, 7)],
        ),
        (
            "roberta_mlm",
            vec!["classifier"],
            vec![(PRETRAINING, 7), (POOLER, 2), (BUFFER, 1)],
        ),
        (
            "xlmr_mlm",
            vec!["classifier"],
            vec![(PRETRAINING, 7), (BUFFER, 1)],
        ),
        (
            "v3_mlm",
            vec!["classifier", "pooler"],
            vec![(PRETRAINING, 7)],
        ),
        (
            "deberta_published",
            vec!["classifier", "pooler"],
            vec![
                (PRETRAINING, 5),
                ("positions, which this model does not add", 1),
            ],
        ),
        (
            "v3_published",
            vec!["classifier", "pooler"],
            vec![
                (PRETRAINING, 11),
                ("positions, which this model does not add", 1),
                ("difference between two embeddings of the pretraining", 1),
            ],
        ),
    ] {
        let (model, report) = load(name, &device);
        assert_eq!(model.random_modules(), fresh, "{name}");
        assert_eq!(ignored(&report), left.into_iter().collect(), "{name}");
        let expected = expected(name);
        let batch = Batch::of(&expected, &device);
        let hidden = host(batch.hidden(&model));
        batch.assert_rows(&hidden, &expected.floats("hidden"), TOLERANCE, name);
        // The heads are not trained, but they compute.
        let logits = host(batch.logits(&model));
        assert!(logits.iter().all(|value| value.is_finite()), "{name}");

        // For tokens there is no pooler; what the file has of one is passed over.
        let tokens = ClassifierOptions {
            head: HeadKind::Token,
            ..options(name)
        };
        let (tokens, _) = Classifier::load(encoder(name), &tokens, &device).unwrap();
        assert_eq!(tokens.random_modules(), ["classifier"], "{name}");
        let hidden = host(batch.hidden(&tokens));
        batch.assert_rows(&hidden, &expected.floats("hidden"), TOLERANCE, name);
    }
}

#[test]
fn every_kind_of_file_gives_the_same_model() {
    let device = Device::flex();
    let reference = logits_on(&model("bert_reg", &device), "bert_reg");
    for (name, files) in [("bert_reg_bin", 1), ("bert_reg_sharded", 3)] {
        let (model, report) = load(name, &device);
        assert!(
            model.random_modules().is_empty() && report.ignored.is_empty(),
            "{name}"
        );
        assert_eq!(report.files.len(), files, "{name}");
        assert_eq!(logits_on(&model, "bert_reg"), reference, "{name}");
    }
    let (half, report) = load("bert_reg_f16", &device);
    assert_eq!(report.dtypes.keys().collect::<Vec<_>>(), ["F16"]);
    let expected = expected("bert_reg_f16");
    let batch = Batch::of(&expected, &device);
    let logits = host(batch.logits(&half));
    batch.assert_rows(&logits, &expected.floats("logits"), TOLERANCE, "f16");
    assert_ne!(logits, reference);
}

#[test]
fn a_head_starts_afresh_where_asked_for() {
    let device = Device::flex();
    for (name, fresh, outputs) in [
        ("bert_seq", vec!["classifier", "pooler"], 2),
        ("roberta_seq", vec!["classifier"], 4),
        ("v3_seq", vec!["classifier", "pooler"], 1),
    ] {
        let labels = match outputs {
            1 => Labels::Score,
            outputs => Labels::numbered(outputs),
        };
        let with_seed = |seed| ClassifierOptions {
            fresh_head: true,
            labels: Some(labels.clone()),
            seed,
            ..options(name)
        };
        let start = |seed| Classifier::load(encoder(name), &with_seed(seed), &device).unwrap();
        let (model, report) = start(3);
        assert_eq!(model.random_modules(), fresh, "{name}");
        assert_eq!(model.config().labels, labels, "{name}");
        let of_heads = |name: &str| name.contains("classifier.") || name.contains("pooler.");
        assert!(report.ignored.iter().all(|tensor| of_heads(&tensor.name)));
        assert_eq!(report.ignored.len(), 4, "{name}: two linear layers");
        let logits = logits_on(&model, name);
        assert_eq!(logits.len(), 3 * outputs, "{name}");
        assert_eq!(logits, logits_on(&start(3).0, name), "{name}");
        assert_ne!(logits, logits_on(&start(4).0, name), "{name}");
        let expected = expected(name);
        let batch = Batch::of(&expected, &device);
        let hidden = host(batch.hidden(&model));
        batch.assert_rows(&hidden, &expected.floats("hidden"), TOLERANCE, name);
    }
}

/// Each kind of dropout on its own, by its key.
#[test]
fn every_dropout_is_on_in_training_and_off_without() {
    use burn::module::Module;
    let device = Device::flex();
    for (name, key) in [
        ("bert_seq", "hidden_dropout_prob"),
        ("bert_seq", "attention_probs_dropout_prob"),
        ("bert_seq", "classifier_dropout"),
        ("bert_tok", "classifier_dropout"),
        ("roberta_seq", "classifier_dropout"),
        ("deberta_seq", "hidden_dropout_prob"),
        ("deberta_seq", "attention_probs_dropout_prob"),
        ("v3_seq", "attention_probs_dropout_prob"),
        ("v3_seq", "pooler_dropout"),
        ("v3_seq", "cls_dropout"),
        ("v3_tok", "hidden_dropout_prob"),
        ("xl_seq", "hidden_dropout_prob"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let weights = encoder(name).join("model.safetensors");
        std::fs::copy(weights, dir.path().join("model.safetensors")).unwrap();
        let mut config = json(&encoder(name).join("config.json"));
        config[key] = 0.5.into();
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let training = device.clone().autodiff();
        let (model, _) = Classifier::load(dir.path(), &options(name), &training).unwrap();
        let (first, second) = (logits_on(&model, name), logits_on(&model, name));
        assert_ne!(first, second, "{name}: {key}");
        let expected = expected(name);
        let batch = Batch::of(&expected, &device);
        let logits = host(batch.logits(&model.valid()));
        batch.assert_rows(&logits, &expected.floats("logits"), TOLERANCE, name);
    }
}

fn load_error(dir: &Path, options: &ClassifierOptions) -> ModelError {
    match Classifier::load(dir, options, &Device::flex()) {
        Err(error) => error,
        Ok((_, report)) => panic!("{} loads: {report}", dir.display()),
    }
}

#[test]
fn a_checkpoint_of_another_family_is_refused_by_name() {
    let other = changed("bert_seq", |_, config| {
        config["model_type"] = "roberta".into()
    });
    match load_error(other.path(), &options("bert_seq")) {
        ModelError::TensorMissing { names, .. } => {
            let embedding = "roberta.embeddings.word_embeddings.weight";
            assert!(names.iter().any(|name| name == embedding), "{names:?}");
        }
        other => panic!("{other}"),
    }
    // The same names up to the attention's.
    let other = changed("v3_seq", |_, config| {
        config["model_type"] = "deberta".into()
    });
    match load_error(other.path(), &options("v3_seq")) {
        ModelError::TensorMissing { names, .. } => {
            let projection = "deberta.encoder.layer.0.attention.self.in_proj.weight";
            assert!(names.iter().any(|name| name == projection), "{names:?}");
        }
        other => panic!("{other}"),
    }
    let other = changed("bert_seq", |_, config| {
        config["model_type"] = "mamba".into()
    });
    match load_error(other.path(), &options("bert_seq")) {
        ModelError::UnsupportedConfig { key, value, .. } => {
            assert_eq!(
                (key.as_str(), value.trim_matches('"')),
                ("model_type", "mamba")
            );
        }
        other => panic!("{other}"),
    }
}

#[test]
fn missing_extra_and_misshapen_tensors_are_refused_by_name() {
    for (name, tensor) in [
        ("bert_seq", "bert.encoder.layer.1.attention.self.key.bias"),
        ("roberta_seq", "roberta.embeddings.LayerNorm.weight"),
        (
            "deberta_seq",
            "deberta.encoder.layer.0.attention.self.q_bias",
        ),
        ("v3_seq", "deberta.encoder.rel_embeddings.weight"),
        ("v3_seq", "deberta.encoder.LayerNorm.bias"),
        ("xl_seq", "deberta.encoder.conv.conv.weight"),
        ("xl_seq", "deberta.embeddings.embed_proj.weight"),
    ] {
        let missing = changed(name, |plan, _| plan.retain(|(name, _)| name != tensor));
        match load_error(missing.path(), &options(name)) {
            ModelError::TensorMissing { names, .. } => assert_eq!(names, [tensor]),
            other => panic!("{other}"),
        }
        let misshapen = changed(name, |plan, _| {
            let (_, shape) = plan.iter_mut().find(|(name, _)| name == tensor).unwrap();
            shape[0] += 1;
        });
        match load_error(misshapen.path(), &options(name)) {
            ModelError::TensorShape { name: found, .. } => assert_eq!(found, tensor),
            other => panic!("{other}"),
        }
    }
    let extra = changed("roberta_seq", |plan, _| {
        plan.push(("adapter.weight".into(), vec![2, 9]))
    });
    match load_error(extra.path(), &options("roberta_seq")) {
        ModelError::TensorUnexpected { names, .. } => assert_eq!(names, ["adapter.weight"]),
        other => panic!("{other}"),
    }
    // Half a head is no head that could start afresh.
    let half = changed("v3_seq", |plan, _| {
        plan.retain(|(name, _)| name != "pooler.dense.bias")
    });
    match load_error(half.path(), &options("v3_seq")) {
        ModelError::TensorMissing { names, .. } => assert_eq!(names, ["pooler.dense.bias"]),
        other => panic!("{other}"),
    }
}

#[test]
fn a_head_with_another_number_of_outputs_is_refused_by_name() {
    for (name, head) in [
        ("bert_seq", "classifier."),
        ("roberta_seq", "classifier.out_proj."),
        ("deberta_seq", "classifier."),
        ("v3_tok", "classifier."),
    ] {
        let found_outputs = if name.ends_with("_tok") { 5 } else { 3 };
        let asked = ClassifierOptions {
            labels: Some(Labels::numbered(2)),
            ..options(name)
        };
        let error = load_error(&encoder(name), &asked);
        let message = error.to_string();
        match error {
            ModelError::HeadMismatch {
                name: tensor,
                expected,
                found,
            } => {
                assert!(tensor.starts_with(head), "{tensor}");
                assert_eq!((expected, found), (2, found_outputs), "{name}");
                assert!(message.contains(&tensor), "{message}");
            }
            other => panic!("{other}"),
        }
    }
}
