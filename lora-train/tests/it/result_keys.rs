//! Differences that make another run of a continued file of results: every option that the results depend on, and the contents of models and
//! adapters.

use crate::common::encoders::{data, encoder, learn, predict};
use crate::common::{fail, lora, model, succeed, texts, train};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

const OTHER: [&str; 3] = ["out.jsonl", "line 1", "other options"];

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A copy of the files of a directory.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Texts of a model and an adapter in directories that a test may change.
struct Texts {
    dir: tempfile::TempDir,
}

impl Texts {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "prompts.txt", "a\nThe Eagle is\nnear\n");
        copy(&model(), &dir.path().join("model"));
        let texts = Self { dir };
        texts.learn("adapter", 1);
        texts
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An adapter of this seed in a directory, where another one may have been.
    fn learn(&self, name: &str, seed: u64) {
        let run = self.at("run");
        let mut command = train(&texts(), &run);
        command.args(["--max-steps", "2", "--rank", "2", "--lr", "1e-2"]);
        command.args(["--save-steps", "0", "--overwrite", "--seed"]);
        succeed(command.arg(seed.to_string()));
        copy(&run.join("adapter"), &self.at(name));
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = lora(["generate", "--device", "flex", "--batch-size", "2"]);
        command.args(["--max-new-tokens", "4"]);
        command.arg("--model").arg(self.at("model"));
        command.arg("--adapter").arg(self.at("adapter"));
        command.arg("--prompts").arg(self.at("prompts.txt"));
        command.arg("--output").arg(self.at("out.jsonl")).args(more);
        command
    }

    fn assert_other(&self, more: &[&str]) {
        fail(self.command(more).arg("--resume"), 1, &OTHER);
    }
}

#[test]
fn every_option_of_generate_makes_another_run() {
    let texts = Texts::new();
    succeed(&mut texts.command(&["--greedy"]));
    let mut resumed = texts.command(&["--greedy", "--resume"]);
    succeed(&mut resumed);
    for (option, value) in [
        ("--temperature", "1.5"),
        ("--top-k", "3"),
        ("--top-p", "0.5"),
        ("--min-p", "0.1"),
        ("--beams", "3"),
        ("--no-repeat-ngram", "2"),
        ("--repetition-penalty", "1.5"),
        ("--min-new-tokens", "2"),
        ("--pad-to-multiple-of", "4"),
        ("--quantize", "int8"),
        ("--base-dtype", "bf16"),
    ] {
        texts.assert_other(&[option, value]);
    }
    let beams = ["--beams", "3", "--overwrite"];
    succeed(&mut texts.command(&beams));
    succeed(&mut texts.command(&["--beams", "3", "--resume"]));
    texts.assert_other(&["--beams", "3", "--length-penalty", "2"]);
    let drawn = ["--temperature", "1.5"];
    succeed(texts.command(&drawn).arg("--overwrite"));
    for more in [["--seed", "7"], ["--top-k", "9"], ["--top-p", "0.4"]] {
        texts.assert_other(&[drawn, more].concat());
    }
    // The last one of an option that may stand once only.
    for (option, value) in [("--max-new-tokens", "5"), ("--batch-size", "3")] {
        let mut command = lora(["generate", "--device", "flex", option, value]);
        command.args(if option == "--batch-size" {
            ["--max-new-tokens", "4"]
        } else {
            ["--batch-size", "2"]
        });
        command.arg("--model").arg(texts.at("model"));
        command.arg("--adapter").arg(texts.at("adapter"));
        command.arg("--prompts").arg(texts.at("prompts.txt"));
        command.arg("--output").arg(texts.at("out.jsonl"));
        command.args(drawn).arg("--resume");
        fail(&mut command, 1, &OTHER);
    }
}

/// The key of a run was made of paths, so that texts of two adapters came into one file.
#[test]
fn other_contents_in_the_same_places_make_another_run() {
    let texts = Texts::new();
    succeed(&mut texts.command(&[]));
    // The same contents in other places are the same run.
    std::fs::rename(texts.at("model"), texts.at("base")).unwrap();
    copy(&texts.at("base"), &texts.at("model"));
    copy(&texts.at("adapter"), &texts.at("first"));
    succeed(&mut texts.command(&["--resume"]));

    texts.learn("adapter", 2);
    texts.assert_other(&[]);
    copy(&texts.at("first"), &texts.at("adapter"));
    succeed(&mut texts.command(&["--resume"]));

    let settings = texts.at("model").join("generation_config.json");
    let before = std::fs::read(&settings).unwrap();
    std::fs::write(&settings, json!({"repetition_penalty": 3.0}).to_string()).unwrap();
    texts.assert_other(&[]);
    std::fs::write(&settings, before).unwrap();
    succeed(&mut texts.command(&["--resume"]));

    let weights = texts.at("model").join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // The last value of the last tensor, in its mantissa.
    let at = bytes.len() - 4;
    bytes[at] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    texts.assert_other(&[]);
}

#[test]
fn every_option_of_predict_and_a_changed_adapter_make_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let bert = encoder("bert", dir.path());
    let (feelings, adapter) = (data("feelings.jsonl"), dir.path().join("adapter"));
    let learned = |seed: &str| {
        let run = dir.path().join("run");
        let mut command = learn(&bert, &feelings, &run);
        command.args(["--task", "multi-label-classification", "--max-steps", "2"]);
        command.args(["--label-column", "labels", "--overwrite", "--seed", seed]);
        succeed(&mut command);
        copy(&run.join("adapter"), &adapter);
    };
    learned("1");
    let command = |batch: &str, more: &[&str]| {
        let mut command = predict(&bert);
        command.arg("--adapter").arg(&adapter);
        command.args(["--label-column", "labels", "--batch-size", batch]);
        command.arg("--data").arg(&feelings);
        command.arg("--output").arg(dir.path().join("out.jsonl"));
        command.args(more);
        command
    };
    succeed(&mut command("2", &[]));
    succeed(&mut command("2", &["--resume"]));
    for (option, value) in [
        ("--threshold", "0.7"),
        ("--max-length", "5"),
        ("--pad-to-multiple-of", "8"),
        ("--quantize", "int8"),
        ("--base-dtype", "bf16"),
    ] {
        fail(&mut command("2", &["--resume", option, value]), 1, &OTHER);
    }
    fail(&mut command("3", &["--resume"]), 1, &OTHER);
    learned("2");
    fail(&mut command("2", &["--resume"]), 1, &OTHER);
}
