//! What is refused of encoders: each with its exit code, and a message that names the thing and what would do.

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
    let words = [
        "option `task`",
        "classification",
        "gpt2",
        "an encoder: BERT",
    ];
    let mut command = place.run(&gpt2(), fine);
    fail(command.args(["--task", "classification"]), 2, &words);
    let words = ["option `task`", "causal-lm needs GPT-2"];
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
            [
                "embeddings.",
                "do the configuration and the weights belong together?",
            ],
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
    let words = ["nowhere", "no such directory", "a model of the Hub"];
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
fn hostile_and_broken_weights_are_refused() {
    let place = Place::new();
    let weights = place.bert.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let words = ["model.safetensors", "bytes of tensors", "download"];
    fail(&mut place.run(&place.bert, &place.fine), 1, &words);
    std::fs::write(&weights, &bytes[..5]).unwrap();
    fail(
        &mut place.run(&place.bert, &place.fine),
        1,
        &["model.safetensors"],
    );
    std::fs::remove_file(&weights).unwrap();
    let words = ["model.safetensors", "pytorch_model.bin", "found none"];
    fail(&mut place.run(&place.bert, &place.fine), 1, &words);

    let models = fixtures().join("../../../lora-models/tests/fixtures");
    let pickle = place.bert.join("pytorch_model.bin");
    let bytes = std::fs::read(models.join("encoders/bert_reg_bin/pytorch_model.bin")).unwrap();
    std::fs::write(&pickle, &bytes[..bytes.len() / 2]).unwrap();
    let words = ["pytorch_model.bin", "its end is missing"];
    fail(&mut place.run(&place.bert, &place.fine), 1, &words);
    for name in ["value.bin", "root.bin"] {
        std::fs::copy(models.join("hostile").join(name), &pickle).unwrap();
        let words = [
            "pytorch_model.bin",
            "`posix.system`",
            "nothing of it was executed",
        ];
        fail(&mut place.run(&place.bert, &place.fine), 1, &words);
    }
    assert!(!place.at("out").exists());
}

#[test]
fn heads_that_do_not_fit_are_refused_with_the_way_out() {
    let place = Place::new();
    let (bert, fine) = (&place.bert, &place.fine);
    // A checkpoint with a head for three classes.
    let full = with_tokenizer("roberta", &classify("roberta_full/init"), place.dir.path());
    let words = [
        "`classifier.out_proj",
        "3 outputs",
        "2 labels",
        "fresh_head",
    ];
    fail(&mut place.run(&full, fine), 1, &words);
    succeed(place.run(&full, fine).args(["--fresh-head", "--overwrite"]));
    std::fs::remove_dir_all(place.at("out")).unwrap();

    let adapter = place.adapter();
    let started = |file: &Path, more: &[&str]| {
        let mut command = place.run(bert, file);
        command.arg("--adapter").arg(&adapter).args(more);
        command
    };
    let three = place.write("three.csv", "text,label\na,x\nb,y\nc,z\n");
    // The classes that the adapter has, and how to start others.
    let words = [
        "unknown label `x`",
        "has a head for no, yes",
        "`fresh_head` starts another",
    ];
    fail(&mut started(&three, &[]), 1, &words);
    let words = [
        "option `adapter`",
        "2 classes (no, yes)",
        "3 classes (x, y, z)",
        "fresh_head",
    ];
    fail(&mut started(&three, &["--labels", "x,y,z"]), 2, &words);
    let words = [
        "option `adapter`",
        "2 classes (no, yes)",
        "a score",
        "fresh_head",
    ];
    fail(
        &mut started(&data("scores.jsonl"), &["--task", "regression"]),
        2,
        &words,
    );
    let conll = place.write("words.conll", "Ada yes\nlives no\n");
    let words = [
        "option `adapter`",
        "for texts",
        "token-classification",
        "fresh_head",
    ];
    fail(
        &mut started(&conll, &["--task", "token-classification"]),
        2,
        &words,
    );
    assert!(!place.at("out").exists());
    succeed(&mut started(&three, &["--fresh-head"]));

    // To evaluate and to predict there is no other head.
    let with_adapter = |mut command: Command, more: &[&str]| {
        command.arg("--adapter").arg(&adapter).args(more);
        command
    };
    let words = [
        "option `task`",
        "token-classification",
        "2 classes (no, yes) for texts",
    ];
    let tagged = ["--task", "token-classification"];
    fail(&mut with_adapter(eval(bert, &conll), &tagged), 2, &words);
    fail(
        &mut with_adapter(predict(bert), &[&tagged[..], &["--text", "a"]].concat()),
        2,
        &words,
    );
    let words = ["option `task`", "regression", "2 classes"];
    let scored = ["--task", "regression"];
    fail(
        &mut with_adapter(eval(bert, &data("scores.jsonl")), &scored),
        2,
        &words,
    );
    fail(
        &mut with_adapter(predict(bert), &[&scored[..], &["--text", "a"]].concat()),
        2,
        &words,
    );
    // GLUE's classes go by name.
    let rte = fixtures().join("glue/glue/rte/train.tsv");
    fail(
        &mut with_adapter(eval(bert, &rte), &["--task", "glue/rte"]),
        2,
        &["labels", "entailment"],
    );
    // Merged, the model itself says what its head is for.
    let merged = place.at("merged");
    let mut merge = lora(["merge", "--device", "flex", "--model"]);
    merge.arg(bert).arg("--output").arg(&merged);
    let mut merge = with_adapter(merge, &[]);
    succeed(&mut merge);
    fail(
        eval(&merged, &conll).args(tagged),
        2,
        &["token-classification", "for texts"],
    );
}

#[test]
fn a_model_of_which_something_is_at_random_is_not_used() {
    let place = Place::new();
    let (bert, fine) = (&place.bert, &place.fine);
    let words = ["option `adapter`", "has no classifier", "a merged model"];
    fail(&mut eval(bert, fine), 2, &words);
    fail(predict(bert).args(["--text", "a"]), 2, &words);
    let mut merge = lora(["merge", "--device", "flex", "--model"]);
    merge.arg(bert).arg("--output").arg(place.at("merged"));
    fail(&mut merge, 2, &words);
    assert!(!place.at("merged").exists());

    // PEFT's adapter for DeBERTa without its pooler, as PEFT writes it unless told.
    let v2 = encoder("v2", place.dir.path());
    let bare = place.at("bare");
    let mut command = train(&v2, fine, &place.at("v2"));
    succeed(command.args(["--max-steps", "1"]));
    std::fs::create_dir(&bare).unwrap();
    let trained = place.at("v2").join("adapter");
    let config = std::fs::read_to_string(trained.join("adapter_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["modules_to_save"] = serde_json::json!(["classifier", "score"]);
    std::fs::write(bare.join("adapter_config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(trained.join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let kept = tensors.iter().filter(|(name, _)| !name.contains("pooler"));
    let kept: Vec<_> = kept.collect();
    assert_eq!(kept.len() + 2, tensors.len());
    safetensors::serialize_to_file(kept, None, &bare.join("adapter_model.safetensors")).unwrap();
    let words = [
        "neither the checkpoint nor the adapter has `pooler`",
        "modules_to_save",
    ];
    fail(eval(&v2, fine).arg("--adapter").arg(&bare), 1, &words);
    fail(
        predict(&v2)
            .args(["--text", "a"])
            .arg("--adapter")
            .arg(&bare),
        1,
        &words,
    );
    fail(
        place
            .run(&v2, fine)
            .arg("--labels")
            .arg("no,yes")
            .arg("--adapter")
            .arg(&bare),
        1,
        &words,
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
        &["--labels", "a,b"][..],
        &["--class-weights", "balanced"],
        &["--label-smoothing", "0.1"],
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
