//! An adapter on another base than its own: a warning, or an error.

use crate::common::encoders::{self, classify, with_tokenizer};
use crate::common::{fail, fixtures, lora, model, succeed, train};
use std::path::{Path, PathBuf};
use std::process::Command;

fn data() -> PathBuf {
    fixtures().join("train20/train.jsonl")
}

/// The same model rounded to f16.
fn rounded(model: &Path, output: &Path) -> PathBuf {
    let mut command = lora(["merge", "--device", "flex", "--dtype", "f16"]);
    command
        .arg("--model")
        .arg(model)
        .arg("--output")
        .arg(output);
    succeed(&mut command);
    output.into()
}

/// Says nothing on `own`, warns once on `other`, and refuses it when asked to.
fn holds(command: impl Fn(&Path) -> Command, own: &Path, other: &Path) {
    let text = succeed(&mut command(own));
    assert!(!text.contains("warning"), "{text}");
    let text = succeed(command(own).arg("--strict-base"));
    assert!(!text.contains("warning"), "{text}");
    let text = succeed(&mut command(other));
    assert_eq!(text.matches("warning: ").count(), 1, "{text}");
    assert!(text.contains("a base with other values of"), "{text}");
    let words = ["a base with other values of", "leave out `--strict-base`"];
    fail(command(other).arg("--strict-base"), 1, &words);
}

#[test]
fn every_job_on_a_language_model_says_that_the_base_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let out = path("out");
    let steps = ["--max-steps", "2", "--save-steps", "1", "--rank", "2"];
    succeed(train(&data(), &out).args(steps));
    let adapter = out.join("adapter");
    let other = rounded(&model(), &path("rounded"));
    let job = |name: &str, base: &Path| {
        let mut command = lora([name, "--device", "flex", "--adapter"]);
        command.arg(&adapter).arg("--model").arg(base);
        command
    };
    let eval = |base: &Path| {
        let mut command = job("eval", base);
        command
            .arg("--data")
            .arg(data())
            .args(["--max-length", "48"]);
        command
    };
    holds(eval, &model(), &other);
    let generate = |base: &Path| {
        let mut command = job("generate", base);
        command.args(["--prompt", "The", "--max-new-tokens", "2"]);
        command
    };
    holds(generate, &model(), &other);
    let merge = |base: &Path| {
        let mut command = job("merge", base);
        command
            .arg("--output")
            .arg(path("merged"))
            .arg("--overwrite");
        command
    };
    holds(merge, &model(), &other);
    let go_on = |base: &Path| {
        let mut command = job("train", base);
        command
            .arg("--data")
            .arg(data())
            .arg("--output")
            .arg(path("more"));
        command.args(["--max-steps", "1", "--save-steps", "0", "--overwrite"]);
        command.args(["--max-length", "48"]);
        command
    };
    holds(go_on, &model(), &other);
    // A checkpoint knows its base too: the run is at its end, and says so again.
    let resume = |base: &Path| {
        let mut command = lora([
            "train",
            "--device",
            "flex",
            "--max-length",
            "48",
            "--resume",
        ]);
        command.arg("--model").arg(base).arg("--data").arg(data());
        command.arg("--output").arg(&out).args(steps);
        command
    };
    holds(resume, &model(), &other);
    // What was trained since is of the base that it was trained on.
    let more = path("more").join("adapter");
    let mut last = lora([
        "eval",
        "--device",
        "flex",
        "--strict-base",
        "--max-length",
        "48",
    ]);
    last.arg("--adapter").arg(&more).arg("--model").arg(&other);
    succeed(last.arg("--data").arg(data()));
}

#[test]
fn adapters_of_different_bases_are_combined_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let other = rounded(&model(), &path("rounded"));
    let steps = ["--max-steps", "1", "--save-steps", "0", "--rank", "2"];
    succeed(train(&data(), &path("own")).args(steps));
    let mut command = lora(["train", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(&other).arg("--data").arg(data());
    succeed(command.arg("--output").arg(path("other")).args(steps));
    let combine = |second: &Path| {
        let mut command = lora(["combine", "--overwrite", "--output"]);
        command
            .arg(path("both"))
            .arg(path("own/adapter"))
            .arg(second);
        command
    };
    let own = path("own/adapter");
    let text = succeed(combine(&own).arg("--strict-base"));
    assert!(!text.contains("warning"), "{text}");
    let text = succeed(&mut combine(&path("other/adapter")));
    assert_eq!(text.matches("warning: ").count(), 1, "{text}");
    let mut strict = combine(&path("other/adapter"));
    fail(
        strict.arg("--strict-base"),
        1,
        &["other values", "one base model"],
    );
}

#[test]
fn a_classifier_with_a_head_of_its_own_is_on_the_same_base() {
    let dir = tempfile::tempdir().unwrap();
    for family in ["bert", "roberta"] {
        let weights = classify("models").join(family);
        let own = with_tokenizer(family, &weights, dir.path());
        let out = dir.path().join(format!("{family}-out"));
        let texts = encoders::data("texts.jsonl");
        let mut command = encoders::learn(&own, &texts, &out);
        succeed(command.args(["--max-steps", "2", "--rank", "2"]));
        let adapter = out.join("adapter");
        let other = dir.path().join(format!("{family}-other"));
        encoder_rounded(&own, &other);
        let predict = |base: &Path| {
            let mut command = lora(["predict", "--device", "flex", "--text", "a good film"]);
            command
                .arg("--model")
                .arg(base)
                .arg("--adapter")
                .arg(&adapter);
            command
        };
        holds(predict, &own, &other);
        let eval = |base: &Path| {
            let mut command = lora(["eval", "--device", "flex"]);
            command
                .arg("--model")
                .arg(base)
                .arg("--adapter")
                .arg(&adapter);
            command.arg("--data").arg(encoders::data("texts.jsonl"));
            command
        };
        holds(eval, &own, &other);
        // A head of another seed is no other base.
        let again = |base: &Path| {
            let more = dir.path().join(format!("{family}-more"));
            let mut command = encoders::learn(base, &texts, &more);
            command.args([
                "--max-steps",
                "1",
                "--fresh-head",
                "--overwrite",
                "--seed",
                "5",
            ]);
            command.arg("--adapter").arg(&adapter);
            command
        };
        holds(again, &own, &other);
    }
}

/// An encoder without a head with its values rounded.
fn encoder_rounded(model: &Path, output: &Path) {
    use lora_models::checkpoint::{Checkpoint, ExportDType, SafetensorsExport};
    std::fs::create_dir(output).unwrap();
    for entry in std::fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, output.join(path.file_name().unwrap())).unwrap();
    }
    let file = Checkpoint::open(model).unwrap();
    let plan: Vec<_> = file
        .names()
        .map(|name| (name.to_string(), file.shape(name).unwrap().to_vec()))
        .collect();
    SafetensorsExport::new(output)
        .with_dtype(ExportDType::F16)
        .write(&plan, |name| Ok(file.read_f32(name)?.values))
        .unwrap();
}
