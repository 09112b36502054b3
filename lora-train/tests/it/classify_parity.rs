//! Training encoders step by step as PEFT and transformers do with PyTorch's AdamW, from the command line.

use crate::common::encoders::{classify, data, encoder, outcome, train, with_tokenizer};
use crate::common::{metrics, tensors};
use serde_json::Value;
use std::path::Path;

/// Runs a case of `fixtures/classify` and compares every step and the final weights.
fn follows_the_reference(case: &str, family: &str, file: &str, task: &str, labels: Option<&str>) {
    let expected = std::fs::read(classify(case).join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let recipe = &expected["recipe"];
    let full = case.ends_with("_full");
    let start = classify(case).join("init");
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let model = if full {
        with_tokenizer(family, &start, dir.path())
    } else {
        encoder(family, dir.path())
    };
    let mut command = train(&model, &data(file), &out);
    command.args(["--task", task, "--no-shuffle"]);
    if full {
        command.arg("--full")
    } else {
        command.arg("--adapter").arg(&start)
    };
    if let Some(labels) = labels {
        command.args(["--labels", labels]);
    }
    for (option, key) in [
        ("--max-steps", "steps"),
        ("--lr", "learning_rate"),
        ("--epsilon", "eps"),
        ("--weight-decay", "weight_decay"),
        ("--warmup-steps", "warmup_steps"),
        ("--schedule", "schedule"),
        ("--max-grad-norm", "max_grad_norm"),
        ("--batch-size", "batch_size"),
        ("--grad-accumulation", "gradient_accumulation_steps"),
        ("--max-length", "max_length"),
        ("--label-smoothing", "label_smoothing"),
    ] {
        command.args([option, recipe[key].to_string().trim_matches('"')]);
    }
    if let Some(weights) = recipe["class_weights"].as_array() {
        let weights: Vec<String> = weights.iter().map(Value::to_string).collect();
        command.args(["--class-weights", &weights.join(",")]);
    }
    outcome(&mut command);

    let steps = metrics(&out);
    assert_eq!(steps.len(), 20);
    for (found, expected) in steps.iter().zip(expected["steps"].as_array().unwrap()) {
        for key in ["loss", "lr", "grad_norm"] {
            let [f, e] = [found, expected].map(|step| step[key].as_f64().unwrap());
            // The reference is in float64. Float32 PyTorch differs from it by 6e-6 at most, as `expected.json` says.
            assert!(
                (f - e).abs() < 2e-5 * e.abs().max(1.0),
                "{case}, step {}: {key} {f} is not {e}",
                found["step"]
            );
        }
        assert_eq!(found["tokens"], expected["tokens"], "{case}");
    }
    let (folder, file) = if full {
        ("model", "model.safetensors")
    } else {
        ("adapter", "adapter_model.safetensors")
    };
    same_tensors(
        case,
        &out.join(folder).join(file),
        &classify(case).join("final").join(file),
    );
}

fn same_tensors(case: &str, found: &Path, expected: &Path) {
    let (found, expected) = (tensors(found), tensors(expected));
    let names = |tensors: &[(String, Vec<usize>, Vec<f32>)]| -> Vec<(String, Vec<usize>)> {
        let named = tensors.iter();
        named.map(|(n, s, _)| (n.clone(), s.clone())).collect()
    };
    assert_eq!(names(&found), names(&expected), "{case}");
    for ((name, _, values), (_, _, expected)) in found.iter().zip(&expected) {
        for (value, expected) in values.iter().zip(expected) {
            // Twenty steps of 5e-3 and more each, of which float32 PyTorch loses up to 3e-5.
            assert!(
                (value - expected).abs() < 1e-4,
                "{case}, {name}: {value} is not {expected}"
            );
        }
    }
}

/// Every case accumulates over unequal batches, the last of an epoch smaller, clips some steps and not others, warms up,
/// and decays matrices alone; pairs are cut to the maximal length.
#[test]
fn bert_on_pairs() {
    let labels = Some("contradiction,entailment,neutral");
    follows_the_reference(
        "bert_pairs",
        "bert",
        "pairs.jsonl",
        "classification",
        labels,
    );
}

#[test]
fn roberta_with_class_weights_and_label_smoothing() {
    let labels = Some("bad,good,mixed");
    follows_the_reference(
        "roberta_weights",
        "roberta",
        "texts.jsonl",
        "classification",
        labels,
    );
}

/// Tags on the first token of each word, weighted by class; sentences are cut.
#[test]
fn xlm_roberta_on_words() {
    let labels = Some("O,B-PER,I-PER,B-LOC,I-LOC");
    follows_the_reference(
        "xlmr_tags",
        "xlmr",
        "tags.conll",
        "token-classification",
        labels,
    );
}

/// The fused projection of the first version, a pooler that trains with the head, a cosine.
#[test]
fn deberta_with_a_fresh_pooler() {
    let labels = Some("contradiction,entailment,neutral");
    follows_the_reference(
        "deberta_pairs",
        "deberta",
        "pairs.jsonl",
        "classification",
        labels,
    );
}

/// Squared errors, adapters on every linear layer.
#[test]
fn deberta_v2_on_scores() {
    follows_the_reference("v2_scores", "v2", "scores.jsonl", "regression", None);
}

/// Binary cross-entropies of any number of classes: `problem_type: multi_label_classification`.
#[test]
fn roberta_on_sets_of_classes() {
    let (data, labels) = ("feelings.jsonl", Some("anger,joy,surprise"));
    let task = "multi-label-classification";
    follows_the_reference("roberta_feelings", "roberta", data, task, labels);
}

/// Squared errors of two outputs: `problem_type: regression`.
#[test]
fn bert_on_several_scores() {
    follows_the_reference("bert_moved", "bert", "moved.jsonl", "regression", None);
}

/// The classes are those of the checkpoint's head.
#[test]
fn all_weights_of_roberta() {
    follows_the_reference(
        "roberta_full",
        "roberta",
        "texts.jsonl",
        "classification",
        None,
    );
}

/// Relative positions train too.
#[test]
fn all_weights_of_deberta_v2() {
    follows_the_reference("v2_full", "v2", "pairs.jsonl", "classification", None);
}
