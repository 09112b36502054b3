//! Words one by one: the space before them in byte-level BPE, and words without tokens.

use crate::common::encoders::{classify, data, encoder, eval, learn, lines, predict, stdout};
use crate::common::{fail, succeed};
use lora_models::tokenizer::Tokenizer;
use serde_json::{Value, json};
use test_support::tensors::json as read;

/// `tokenizer(words, is_split_into_words=True)` of transformers with and without `add_prefix_space`.
#[test]
fn the_tokens_of_words_are_those_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    for case in read(&classify("use.json"))["words"].as_array().unwrap() {
        let (family, space) = (case["family"].as_str().unwrap(), &case["add_prefix_space"]);
        let tokenizer = Tokenizer::from_dir(encoder(family, dir.path())).unwrap();
        let tokenizer = tokenizer.with_prefix_space(space.as_bool().unwrap());
        for row in case["rows"].as_array().unwrap() {
            let words: Vec<&str> = row["words"]
                .as_array()
                .unwrap()
                .iter()
                .map(|w| w.as_str().unwrap())
                .collect();
            let found = tokenizer.encode_words(&words, None).unwrap();
            assert_eq!(json!(found.ids), row["ids"], "{family} {space} {words:?}");
            assert_eq!(json!(found.words), row["of"], "{family} {space} {words:?}");
        }
    }
}

/// Words were encoded without the space before them, as no model for words has learned them.
#[test]
fn words_are_encoded_with_the_space_before_them_unless_told_otherwise() {
    for family in ["roberta", "deberta"] {
        let dir = tempfile::tempdir().unwrap();
        let (model, tags) = (encoder(family, dir.path()), data("tags.conll"));
        let run = |name: &str, more: &[&str]| {
            let out = dir.path().join(name);
            let mut command = learn(&model, &tags, &out);
            command.args(["--task", "token-classification", "--max-steps", "2"]);
            succeed(command.args(more));
            out.join("adapter")
        };
        let adapter = run("default", &[]);
        let logits = |more: &[&str]| -> Vec<Value> {
            let file = dir.path().join("predictions.jsonl");
            let mut command = eval(&model, &tags);
            command
                .arg("--adapter")
                .arg(&adapter)
                .arg("--overwrite")
                .args(more);
            succeed(command.arg("--predictions").arg(&file));
            lines(&file)
                .into_iter()
                .map(|line| line["logits"].clone())
                .collect()
        };
        assert_eq!(logits(&[]), logits(&["--add-prefix-space", "true"]));
        assert_ne!(logits(&[]), logits(&["--add-prefix-space", "false"]));
        let other = run("without", &["--add-prefix-space", "false"]);
        let [a, b] = [&adapter, &other]
            .map(|dir| std::fs::read(dir.join("adapter_model.safetensors")).unwrap());
        assert_ne!(a, b);
        // Texts have no words to put spaces before.
        let mut command = learn(&model, &data("texts.jsonl"), &dir.path().join("texts"));
        fail(
            command.args(["--add-prefix-space", "true"]),
            2,
            &["add_prefix_space"],
        );
    }
}

/// Blank words, empty words and empty sentences were errors; transformers reads them as words without tokens.
#[test]
fn a_word_of_white_space_has_no_token_and_no_class() {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder("bert", dir.path());
    let file = dir.path().join("words.jsonl");
    let rows = [
        (
            json!(["Ada", "", "lives", " "]),
            json!(["B-PER", "O", "O", "O"]),
        ),
        (json!([" "]), json!(["O"])),
        (json!([]), json!([])),
        (json!(["\u{a0}", "here"]), json!(["B-PER", "O"])),
    ];
    let text = rows
        .iter()
        .map(|(words, tags)| json!({"tokens": words, "tags": tags}).to_string() + "\n");
    std::fs::write(&file, text.collect::<String>()).unwrap();
    let out = dir.path().join("out");
    let mut command = learn(&model, &file, &out);
    command.args([
        "--task",
        "token-classification",
        "--max-steps",
        "4",
        "--batch-size",
        "1",
    ]);
    succeed(command.arg("--eval-data").arg(&file));
    let mut command = predict(&model);
    command
        .arg("--adapter")
        .arg(out.join("adapter"))
        .args(["--json", "--data"]);
    let output = stdout(command.arg(&file));
    let found: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let is_null = |row: &Value| -> Vec<bool> {
        row["prediction"]
            .as_array()
            .unwrap()
            .iter()
            .map(Value::is_null)
            .collect()
    };
    let nulls: Vec<Vec<bool>> = found.iter().map(is_null).collect();
    let expected = [
        vec![false, true, false, true],
        vec![true],
        vec![],
        vec![true, false],
    ];
    assert_eq!(nulls, expected);
}
