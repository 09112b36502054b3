//! Encoders from the command line: train, evaluate, merge, resume, in every family.

use crate::common::encoders::{
    FAMILIES, classify, data, encoder, eval, evaluations, learn, lines, numbers, outcome,
    same_metrics, train, with_tokenizer,
};
use crate::common::{adapter, lora, losses, succeed, tensors};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use test_support::tensors::json;

fn same_logits(found: &Path, expected: &Path, tolerance: f64) {
    let (found, expected) = (lines(found), lines(expected));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let (f, e) = (numbers(&found["logits"]), numbers(&expected["logits"]));
        assert_eq!(f.len(), e.len());
        for (f, e) in f.iter().zip(&e) {
            assert!((f - e).abs() <= tolerance, "{found} {expected}");
        }
    }
}

#[test]
fn every_family_trains_saves_its_head_evaluates_and_merges() {
    for family in FAMILIES {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let model = encoder(family, dir.path());
        let (pairs, run) = (data("pairs.jsonl"), at("run"));
        let mut command = learn(&model, &pairs, &run);
        command.args(["--task", "classification", "--epochs", "6", "--merge"]);
        command.args(["--targets", "all-linear", "--eval-data"]);
        let outcome = outcome(command.arg(&pairs));
        assert_eq!(outcome["steps"], 12, "{family}");
        let loss = |when: &str| outcome[when]["loss"].as_f64().unwrap();
        assert!(loss("after") < loss("before"), "{family}: {outcome}");

        // BERT's pooler is in the checkpoint, DeBERTa's never; RoBERTa has none.
        let names: Vec<String> = adapter(&run.join("adapter"))
            .into_iter()
            .map(|(name, ..)| name)
            .collect();
        let has = |part: &str| names.iter().any(|name| name.contains(part));
        assert!(has("base_model.model.classifier"), "{family}: {names:?}");
        assert_eq!(
            has(".pooler.dense.weight"),
            family.ends_with('2') || family == "deberta"
        );
        let config = json(&run.join("adapter/config.json"));
        let labels = json!({"0": "contradiction", "1": "entailment", "2": "neutral"});
        assert_eq!(config["id2label"], labels, "{family}");
        let config = json(&run.join("adapter/adapter_config.json"));
        assert_eq!(config["task_type"], "SEQ_CLS", "{family}");

        let (with_adapter, merged, own) = (at("a.jsonl"), at("m.jsonl"), at("o.jsonl"));
        let mut command = eval(&model, &pairs);
        command.arg("--adapter").arg(run.join("adapter"));
        let output = succeed(command.arg("--predictions").arg(&with_adapter));
        same_metrics(&output, &outcome);
        assert!(output.contains("label \\ prediction"), "{output}");
        predictions_are_in_order(&with_adapter);

        let mut command = lora(["merge", "--device", "flex"]);
        command
            .arg("--model")
            .arg(&model)
            .arg("--output")
            .arg(at("whole"));
        succeed(command.arg("--adapter").arg(run.join("adapter")));
        for (merged, predictions) in [(at("whole"), &merged), (run.join("merged"), &own)] {
            succeed(eval(&merged, &pairs).arg("--predictions").arg(predictions));
            // Float32 sums in another order.
            same_logits(predictions, &with_adapter, 1e-5);
        }
        let inspected = succeed(lora(["inspect"]).arg(run.join("adapter")));
        for words in ["contradiction, entailment, neutral", "fully trained"] {
            assert!(inspected.contains(words), "{inspected}");
        }
        assert!(!inspected.contains("unusual"), "{inspected}");
    }
}

/// Lines of `{"logits": …, "label": …, "prediction": …}` for `pairs.jsonl`.
fn predictions_are_in_order(path: &Path) {
    let classes = ["contradiction", "entailment", "neutral"];
    let records = lines(&data("pairs.jsonl"));
    let found = lines(path);
    assert_eq!(found.len(), records.len());
    for (line, record) in found.iter().zip(&records) {
        assert_eq!(line["label"], record["label"]);
        let logits = numbers(&line["logits"]);
        assert_eq!(logits.len(), 3);
        let best = (0..3).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        assert_eq!(line["prediction"], classes[best.unwrap()]);
        assert_eq!(line.as_object().unwrap().len(), 3);
    }
}

#[test]
fn every_family_trains_all_weights() {
    for family in FAMILIES {
        let dir = tempfile::tempdir().unwrap();
        let model = encoder(family, dir.path());
        let (texts, run) = (data("texts.jsonl"), dir.path().join("run"));
        let mut command = learn(&model, &texts, &run);
        command.args([
            "--full",
            "--epochs",
            "12",
            "--keep-best",
            "--metric",
            "loss",
        ]);
        let outcome = outcome(command.arg("--eval-data").arg(&texts));
        let loss = |when: &str| outcome[when]["loss"].as_f64().unwrap();
        assert!(loss("after") < 0.98 * loss("before"), "{family}: {outcome}");
        assert!(!run.join("adapter").exists());
        let start = tensors(&model.join("model.safetensors"));
        let trained = tensors(&run.join("model/model.safetensors"));
        // The pooler of RoBERTa's checkpoint is not used.
        for (name, _, values) in start.iter().filter(|(name, ..)| !name.contains("pooler")) {
            let mut same = trained
                .iter()
                .filter(|(other, ..)| other.ends_with(name.as_str()));
            let (name, _, now) = same.next().unwrap();
            assert_ne!(now, values, "{family}: {name}");
        }
        let output = succeed(&mut eval(&run.join("model"), &texts));
        same_metrics(&output, &outcome);
    }
}

/// Killed in the middle and resumed: losses, evaluations and weights of a run that was not.
fn killed_and_resumed(family: &str, what: &[&str], weights: &str) {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder(family, dir.path());
    // Dropout inside the model has a state too.
    let config = model.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace(
        "\"hidden_dropout_prob\": 0.0",
        "\"hidden_dropout_prob\": 0.2",
    );
    assert!(text.contains("0.2"));
    std::fs::write(&config, text).unwrap();
    let run = |output: &Path| {
        let mut command = train(&model, &data("pairs.jsonl"), output);
        command.args(what).args(["--lr", "1e-2"]);
        command.args([
            "--batch-size",
            "3",
            "--grad-accumulation",
            "2",
            "--seed",
            "5",
        ]);
        command.args([
            "--max-steps",
            "300",
            "--save-steps",
            "20",
            "--eval-steps",
            "50",
        ]);
        command.args(["--keep-best", "--class-weights", "balanced"]);
        command.arg("--eval-data").arg(data("pairs.jsonl"));
        command
    };
    let whole = dir.path().join("whole");
    succeed(&mut run(&whole));

    let cut = dir.path().join("cut");
    let mut command = run(&cut);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = cut.join("metrics.jsonl");
    let lines = || {
        std::fs::read_to_string(&file)
            .unwrap_or_default()
            .lines()
            .count()
    };
    while lines() < 60 {
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "it ended before it was killed"
        );
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let done = losses(&cut).len();
    assert!(done < 300, "killed too late");
    let output = succeed(run(&cut).arg("--resume"));
    assert!(output.contains("resuming at step"), "{output}");
    assert_eq!(losses(&cut), losses(&whole), "{family}");
    assert_eq!(evaluations(&cut), evaluations(&whole), "{family}");
    assert_eq!(
        tensors(&cut.join(weights)),
        tensors(&whole.join(weights)),
        "{family}"
    );
}

#[test]
fn a_killed_run_with_a_fresh_pooler_goes_on_as_if_nothing_had_been() {
    let what = ["--dropout", "0.1", "--rank", "3"];
    killed_and_resumed("v2", &what, "adapter/adapter_model.safetensors");
}

#[test]
fn a_killed_run_of_all_weights_goes_on_as_if_nothing_had_been() {
    killed_and_resumed("roberta", &["--full"], "model/model.safetensors");
}

#[test]
fn the_best_evaluation_is_kept_by_the_metric_of_the_task_or_the_one_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder("roberta", dir.path());
    for (metric, options) in [("combined_score", &[][..]), ("loss", &["--metric", "loss"])] {
        let run = dir.path().join(metric);
        let mut command = train(&model, &data("texts.jsonl"), &run);
        // A rate at which it goes up and down.
        command.args(["--lr", "0.2", "--schedule", "constant", "--max-steps", "40"]);
        command.args(["--eval-steps", "2", "--keep-best", "--eval-data"]);
        let outcome = outcome(command.arg(data("texts.jsonl")).args(options));
        let evaluations = evaluations(&run);
        let value = |eval: &Value| eval[metric].as_f64().unwrap();
        let better = |a: f64, b: f64| if metric == "loss" { a < b } else { a > b };
        let mut best = &evaluations[0];
        for evaluation in &evaluations {
            if better(value(&evaluation.1), value(&best.1)) {
                best = evaluation;
            }
        }
        assert_ne!(best.0, 40, "the last is the best: nothing is tested");
        assert_eq!(outcome["after"], best.1, "{metric}");
        let kept = run.join(format!("checkpoints/best-{:08}/adapter", best.0));
        assert_eq!(adapter(&run.join("adapter")), adapter(&kept));
    }
}

#[test]
fn balanced_weights_are_those_of_the_labels_of_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder("roberta", dir.path());
    let with = |weights: &[&str], name: &str| {
        let run = dir.path().join(name);
        let mut command = learn(&model, &data("texts.jsonl"), &run);
        succeed(
            command
                .args(["--epochs", "2", "--batch-size", "4"])
                .args(weights),
        );
        losses(&run)
    };
    // Of 13 texts 4 are bad, 5 good and 4 mixed.
    let of = |count: f64| (13.0 / (3.0 * count)).to_string();
    let given = [of(4.0), of(5.0), of(4.0)].join(",");
    let given = with(&["--class-weights", &given], "given");
    assert_eq!(with(&["--class-weights", "balanced"], "balanced"), given);
    assert_ne!(with(&[], "none"), given);
}

#[test]
fn more_modules_are_trained_whole_where_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder("bert", dir.path());
    let run = dir.path().join("run");
    let mut command = learn(&model, &data("texts.jsonl"), &run);
    command.args(["--modules-to-save", "pooler,LayerNorm", "--max-steps", "3"]);
    command.arg("--eval-data").arg(data("texts.jsonl"));
    let outcome = outcome(&mut command);
    let saved = adapter(&run.join("adapter"));
    for part in [
        "bert.pooler.dense.bias",
        "layer.1.output.LayerNorm.weight",
        "classifier.bias",
    ] {
        assert!(
            saved.iter().any(|(name, ..)| name.ends_with(part)),
            "{part}"
        );
    }
    let mut command = eval(&model, &data("texts.jsonl"));
    same_metrics(
        &succeed(command.arg("--adapter").arg(run.join("adapter"))),
        &outcome,
    );
}

#[test]
fn a_model_with_a_head_is_trained_further_with_the_classes_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_tokenizer("v2", &classify("v2_full/init"), dir.path());
    let config = model.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    // In another order than that of the alphabet.
    let mut object: Value = serde_json::from_str(&text).unwrap();
    object["id2label"] = json!({"0": "neutral", "1": "contradiction", "2": "entailment"});
    object["label2id"] = json!({"neutral": 0, "contradiction": 1, "entailment": 2});
    std::fs::write(&config, object.to_string()).unwrap();
    let run = dir.path().join("run");
    let mut command = learn(&model, &data("pairs.jsonl"), &run);
    let output = succeed(command.args(["--max-steps", "1"]));
    assert!(
        output.contains("neutral, contradiction, entailment"),
        "{output}"
    );
    let labels = json(&run.join("adapter/config.json"));
    assert_eq!(labels["id2label"], object["id2label"]);
    // Without any training it is evaluated as it is.
    succeed(&mut eval(&model, &data("pairs.jsonl")));
}
