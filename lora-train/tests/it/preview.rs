//! `lora preview`: encoded examples of a run.

use crate::common::{encoders, fail, json_of, lora, model, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn write(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("data.jsonl");
    std::fs::write(&path, text).unwrap();
    path
}

fn preview(model: &Path, data: &Path) -> Command {
    let mut command = lora(["preview", "--device", "flex"]);
    command.arg("--model").arg(model).arg("--data").arg(data);
    command
}

fn json(command: &mut Command) -> Value {
    json_of(&succeed(command.arg("--json")))
}

fn tokens(example: &Value) -> Vec<(u64, &str, bool)> {
    let tokens = example["tokens"].as_array().unwrap();
    let token = |token| -> (u64, &str, bool) {
        let token: &Value = token;
        (
            token["id"].as_u64().unwrap(),
            token["token"].as_str().unwrap(),
            token["learned"].as_bool().unwrap(),
        )
    };
    tokens.iter().map(token).collect()
}

/// Ids and tokens by transformers' `AutoTokenizer` on the fixture model; 299 ends a text.
#[test]
fn a_completion_is_learned_and_its_end_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let text = "{\"prompt\": \"name\", \"completion\": \" is cheap and good\"}\n\
                {\"prompt\": \"name[Aromi], eatType[pub]\", \"completion\": \" is cheap and good\"}\n\
                {\"prompt\": \"name\", \"completion\": \" is\"}\n";
    let data = write(dir.path(), text);
    let base = model();
    let limited = || {
        let mut command = preview(&base, &data);
        command.args(["--max-length", "10"]);
        command
    };
    let shown = json(&mut limited());
    assert_eq!(
        (&shown["examples"], &shown["cut"], &shown["left_out"]),
        (&2.into(), &1.into(), &1.into())
    );
    let shown = shown["shown"].as_array().unwrap();
    let expected = [
        (77, "n", false),
        (269, "am", false),
        (68, "e", false),
        (296, "Ġis", true),
        (258, "Ġc", true),
        (268, "he", true),
        (64, "a", true),
        (79, "p", true),
        (262, "Ġa", true),
        (77, "n", true),
    ];
    assert_eq!(tokens(&shown[0]), expected);
    assert_eq!(shown[0]["cut_tokens"], 6);
    assert!(
        shown[0]["cut_text"].as_str().unwrap().starts_with("d good"),
        "{}",
        shown[0]
    );
    assert!(
        shown[0]["origin"]
            .as_str()
            .unwrap()
            .ends_with("data.jsonl:1")
    );
    assert!(tokens(&shown[1]).is_empty());
    assert_eq!(tokens(&shown[2]).last().unwrap().0, 299);

    let printed = succeed(&mut limited());
    for line in [
        "data.jsonl:1: 10 tokens, 7 of them learned",
        "    3     296  Ġis                      learned",
        "  cut off: 6 tokens, `d good",
        "data.jsonl:2: left out, no token to learn is left",
        "2 examples, 1 of them cut; 1 more left out, without a token to learn",
    ] {
        assert!(printed.contains(line), "`{line}` is not in\n{printed}");
    }
    // Whichever number is asked for, a cut example is shown.
    let last = json(limited().args(["--examples", "0"]));
    assert_eq!(last["shown"].as_array().unwrap().len(), 1);
    assert_eq!(last["shown"][0]["cut_tokens"], 6);
}

#[test]
fn a_class_is_shown_with_the_text_that_it_is_learned_from() {
    let dir = tempfile::tempdir().unwrap();
    let bert = encoders::encoder("bert", dir.path());
    let text = "{\"text\": \"a b c d e f\", \"pair\": \"a b\", \"label\": \"yes\"}\n\
                {\"text\": \"a\", \"pair\": \"b\", \"label\": \"no\"}\n";
    let data = write(dir.path(), text);
    let shown = json(preview(&bert, &data).args(["--max-length", "8"]));
    let first = &shown["shown"][0];
    assert_eq!(
        (&first["label"], &first["cut_tokens"]),
        (&"yes".into(), &3.into())
    );
    // The longer text is cut, and not the pair behind it.
    assert_eq!(first["cut_text"], "d e f");
    assert!(tokens(first).iter().all(|(.., learned)| !learned));
    assert_eq!(shown["shown"][1]["cut_tokens"], 0);
    let printed = succeed(&mut preview(&bert, &data));
    assert!(
        printed.contains("data.jsonl:2: 5 tokens, learned: no"),
        "{printed}"
    );
}

#[test]
fn several_labels_of_a_text_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let bert = encoders::encoder("bert", dir.path());
    let shown = |text: &str, task: &str| -> Vec<Value> {
        let data = write(dir.path(), text);
        let shown = json(preview(&bert, &data).args(["--task", task]));
        let examples = shown["shown"].as_array().unwrap().iter();
        examples.map(|example| example["label"].clone()).collect()
    };
    let sets =
        "{\"text\": \"a\", \"label\": [\"joy\", \"anger\"]}\n{\"text\": \"b\", \"label\": []}\n";
    assert_eq!(
        shown(sets, "multi-label-classification"),
        ["anger, joy", "no class"]
    );
    let scores =
        "{\"text\": \"a\", \"label\": [0.5, -2]}\n{\"text\": \"b\", \"label\": [1, 0.25]}\n";
    assert_eq!(shown(scores, "regression"), ["0.5, -2", "1, 0.25"]);
}

#[test]
fn tags_stand_at_the_first_token_of_their_words() {
    let dir = tempfile::tempdir().unwrap();
    let bert = encoders::encoder("bert", dir.path());
    let data = write(
        dir.path(),
        "{\"tokens\": [\"a\", \"b\"], \"tags\": [\"O\", \"B-X\"]}\n",
    );
    let mut command = preview(&bert, &data);
    let shown = json(command.args(["--task", "token-classification"]));
    let labels = shown["shown"][0]["tokens"].as_array().unwrap();
    let labels: Vec<&Value> = labels.iter().map(|token| &token["label"]).collect();
    let (none, o, b) = (Value::Null, Value::from("O"), Value::from("B-X"));
    assert_eq!(labels, [&none, &o, &b, &none]);
}

#[test]
fn nothing_is_read_but_data_and_tokenizer_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    for entry in std::fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !name.contains("safetensors") {
            std::fs::copy(entry.path(), base.join(name)).unwrap();
        }
    }
    let data = write(dir.path(), "{\"text\": \"a text\"}\n");
    succeed(
        preview(&base, &data)
            .arg("--output")
            .arg(dir.path().join("out")),
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    fail(
        preview(&base, &data).args(["--targets", "q_proj"]),
        1,
        &["q_proj"],
    );
}
