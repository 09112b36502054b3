//! Refused options, data and models of encoders: exit codes, and messages that name the cause and the remedy.

mod weights;

use crate::common::encoders::{classify, data, encoder, eval, predict, train, with_tokenizer};
use crate::common::{fail, fixtures, lora, model as gpt2, succeed};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder with BERT and a file that is fine.
struct Place {
    dir: TempDir,
    bert: PathBuf,
    fine: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bert = encoder("bert", dir.path());
        let fine = dir.path().join("fine.csv");
        std::fs::write(&fine, "text,label\nIt is near.,yes\nIt is far.,no\n").unwrap();
        Self { dir, bert, fine }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.at(name), text).unwrap();
        self.at(name)
    }

    fn run(&self, model: &Path, data: &Path) -> Command {
        let mut command = train(model, data, &self.at("out"));
        command.args(["--max-steps", "1"]);
        command
    }

    /// An adapter for two classes, `no` and `yes`.
    fn adapter(&self) -> PathBuf {
        let run = self.at("trained");
        let mut command = train(&self.bert, &self.fine, &run);
        succeed(command.args(["--max-steps", "1"]));
        run.join("adapter")
    }
}

#[test]
fn data_that_cannot_be_used_is_refused_by_file_and_line() {
    let place = Place::new();
    let (bert, fine) = (&place.bert, &place.fine);
    let refuse = |file: &Path, task: &str, words: &[&str]| {
        fail(place.run(bert, file).args(["--task", task]), 1, words);
    };
    let columns = place.write("columns.csv", "sentence,label\na,1\nb,0\n");
    let words = ["columns.csv", "no column `text`", "`sentence`, `label`"];
    refuse(&columns, "classification", &words);
    let words = ["columns.csv", "not a file of RTE", "`sentence`, `label`"];
    refuse(&columns, "glue/rte", &words);
    let words = ["pairs.jsonl", "line 1", "\"tokens\""];
    refuse(&data("pairs.jsonl"), "token-classification", &words);
    let words = ["texts.jsonl", "line 1", "`good` is no score"];
    refuse(&data("texts.jsonl"), "regression", &words);
    let words = ["scores.jsonl", "line 1", "4.5", "choose regression"];
    refuse(&data("scores.jsonl"), "classification", &words);
    let unlabelled = place.write(
        "some.jsonl",
        "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\"}\n",
    );
    refuse(
        &unlabelled,
        "classification",
        &["some.jsonl", "line 2", "no label"],
    );
    for (name, text) in [
        ("empty.csv", ""),
        ("header.csv", "text,label\n"),
        ("empty.jsonl", "\n"),
    ] {
        let file = place.write(name, text);
        refuse(
            &file,
            "classification",
            &[name, "contains no usable example"],
        );
    }
    let one = place.write("one.csv", "text,label\na,x\nb,x\n");
    refuse(&one, "classification", &["one.csv", "every label is `x`"]);

    // Labels that were not trained.
    let other = place.write("other.csv", "text,label\na,yes\nb,maybe\n");
    let words = [
        "other.csv",
        "line 3",
        "unknown label `maybe`",
        "`no`, `yes`",
    ];
    fail(
        place.run(bert, fine).arg("--eval-data").arg(&other),
        1,
        &words,
    );
    fail(
        place.run(bert, &other).args(["--labels", "no,yes"]),
        1,
        &words,
    );
    let adapter = place.adapter();
    fail(eval(bert, &other).arg("--adapter").arg(&adapter), 1, &words);
    assert!(
        !place.at("out").exists(),
        "a run that cannot start leaves nothing behind"
    );
}

#[test]
fn models_that_do_not_fit_are_refused() {
    let place = Place::new();
    let (bert, fine) = (&place.bert, &place.fine);
    let words = ["option `task`", "causal-lm needs a language model"];
    fail(
        place.run(bert, fine).args(["--task", "causal-lm"]),
        2,
        &words,
    );
    let mut command = lora(["generate", "--device", "flex", "--prompt", "a", "--model"]);
    fail(
        command.arg(bert),
        1,
        &["config.json", "`model_type` is bert", "gpt2"],
    );
    fail(
        predict(&gpt2()).args(["--text", "a"]),
        2,
        &["lora generate"],
    );
    // RoBERTa's weights under BERT's configuration: by name, or where there is no prefix by shape.
    for (source, words) in [
        ("roberta_full/init", ["lacks", "bert.embeddings"]),
        (
            "models/roberta",
            ["embeddings.", "use the configuration of these weights"],
        ),
    ] {
        let weights = classify(source).join("model.safetensors");
        std::fs::copy(weights, bert.join("model.safetensors")).unwrap();
        fail(&mut place.run(bert, fine), 1, &words);
    }
    // A tokenizer with more tokens than the model.
    let small = with_tokenizer("xlmr", &classify("models/xlmr"), place.dir.path());
    let config = std::fs::read_to_string(small.join("config.json")).unwrap();
    std::fs::write(small.join("config.json"), config.replace("302", "300")).unwrap();
    fail(
        &mut place.run(&small, fine),
        1,
        &["word_embeddings", "302", "300"],
    );

    let nowhere = place.at("nowhere");
    let words = ["nowhere", "no such directory", "a model on the Hub"];
    fail(&mut place.run(&nowhere, fine), 1, &words);
    let mut command = train(Path::new("nobody/nothing"), fine, &place.at("out"));
    command
        .env("HF_HOME", place.at("cache"))
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env_remove("HF_HUB_CACHE");
    fail(
        &mut command,
        1,
        &["nobody/nothing", "not complete in the cache"],
    );
    assert!(!place.at("out").exists());
}

#[test]
fn options_are_refused_by_name() {
    let place = Place::new();
    let (bert, fine) = (&place.bert, &place.fine);
    let evaluated = |more: &[&str]| {
        let mut command = place.run(bert, fine);
        command.arg("--eval-data").arg(fine).args(more);
        command
    };
    for (options, words) in [
        (
            &["--class-weights", "1,2,3"][..],
            &["class_weights", "are 3", "2: no, yes"][..],
        ),
        (
            &["--class-weights", "1,-2"],
            &["class_weights", "-2", "above 0"],
        ),
        (
            &["--class-weights", "1,heavy"],
            &["--class-weights", "balanced"],
        ),
        (
            &["--metric", "bleu"],
            &["metric", "`bleu`", "loss, accuracy, f1, combined_score"],
        ),
        (
            &["--max-length", "2"],
            &["max_length", "is 2", "at least 3"],
        ),
        (
            &["--max-length", "49"],
            &["max_length", "is 49", "48 tokens at most"],
        ),
        (&["--labels", "no,no"], &["labels", "both named `no`"]),
        (&["--task", "glue/nothing"], &["glue/nothing", "`cola`"]),
        (&["--task", "tagging"], &["tagging", "token-classification"]),
        (
            &["--concatenate"],
            &[
                "option `concatenate`",
                "no meaning for the task classification",
            ],
        ),
        (
            &["--packing"],
            &["option `packing`", "no meaning for the task classification"],
        ),
        (
            &["--prompt-column", "p"],
            &["option `prompt_column`", "no meaning"],
        ),
        (&["--no-eos"], &["option `no_eos`", "no meaning"]),
        (
            &["--generate-prompts", "3"],
            &["option `generate_prompts`", "no meaning"],
        ),
        (&["--beams", "2"], &["option `beams`", "no meaning"]),
        (&["--full", "--adapter", "somewhere"], &["option `full`"]),
    ] {
        fail(&mut evaluated(options), 2, words);
    }
    let pairs = data("pairs.jsonl");
    let words = ["max_length", "is 4", "at least 5"];
    fail(
        place.run(bert, &pairs).args(["--max-length", "4"]),
        2,
        &words,
    );
    let words = ["option `eval_data`", "is missing"];
    fail(place.run(bert, fine).args(["--metric", "loss"]), 2, &words);
    fail(place.run(bert, fine).arg("--keep-best"), 2, &words);
    for options in [
        &["--class-weights", "balanced"][..],
        &["--label-smoothing", "0.1"],
        &["--threshold", "0.4"],
    ] {
        let mut command = place.run(bert, &data("scores.jsonl"));
        command.args(["--task", "regression"]).args(options);
        fail(&mut command, 2, &["no meaning for the task regression"]);
    }
    let mut command = place.run(bert, &data("tags.conll"));
    command.args(["--task", "token-classification", "--pair-column", "p"]);
    fail(&mut command, 2, &["option `pair_column`", "no meaning"]);
    let cola = fixtures().join("glue/glue/cola/train.tsv");
    let mut command = place.run(bert, &cola);
    command.args(["--task", "glue/cola", "--text-column", "sentence"]);
    fail(&mut command, 2, &["option `text_column`", "no meaning"]);
    // And those of encoders for a language model.
    for option in [
        &["--labels", "a,b"][..],
        &["--class-weights", "1,2"],
        &["--fresh-head"],
        &["--label-column", "label"],
    ] {
        let words = ["no meaning for the task causal-lm"];
        fail(place.run(&gpt2(), fine).args(option), 2, &words);
    }
    let adapter = place.adapter();
    let mut command = eval(bert, fine);
    command.arg("--adapter").arg(&adapter).arg("--generate");
    fail(&mut command, 2, &["option `generate`", "causal-lm"]);
    let predicted = |more: &[&str]| {
        let mut command = predict(bert);
        command.arg("--adapter").arg(&adapter).args(more);
        command.stdin(std::process::Stdio::null());
        command
    };
    fail(&mut predicted(&[]), 2, &["option `text`", "--texts"]);
    fail(
        &mut predicted(&["--texts", "nothing.txt"]),
        1,
        &["nothing.txt"],
    );
    let mut command = predicted(&["--submission", "answers", "--data"]);
    fail(command.arg(fine), 2, &["submission", "GLUE"]);
    assert!(!place.at("out").exists());
}
