//! Tokenizers give the ids that `transformers` gives, from either kind of file; hostile files are errors.

use lora_models::ModelError;
use lora_models::tokenizer::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer")
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(fixture().join("expected.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

/// A directory with some of the fixture's files.
fn with_files(names: &[&str]) -> (tempfile::TempDir, Tokenizer) {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::copy(fixture().join(name), dir.path().join(name)).unwrap();
    }
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    (dir, tokenizer)
}

#[test]
fn both_kinds_of_file_give_the_ids_of_transformers() {
    let expected = expected();
    let cases = expected["cases"].as_array().unwrap();
    assert!(cases.len() > 20);
    for files in [
        ["tokenizer.json"].as_slice(),
        &["tokenizer.json", "tokenizer_config.json"],
        &["vocab.json", "merges.txt"],
        &["vocab.json", "merges.txt", "tokenizer_config.json"],
    ] {
        let (_dir, tokenizer) = with_files(files);
        assert_eq!(
            u64::from(tokenizer.eos_id().unwrap()),
            expected["eos_token_id"],
            "{files:?}"
        );
        assert_eq!(tokenizer.pad_id(), None);
        let mut texts = Vec::new();
        for case in cases {
            let (text, wanted) = (case["text"].as_str().unwrap(), ids(&case["ids"]));
            assert_eq!(
                tokenizer.encode(text).unwrap(),
                wanted,
                "{files:?}: {text:?}"
            );
            assert_eq!(
                tokenizer.decode(&wanted, false).unwrap(),
                case["decoded"],
                "{text:?}"
            );
            let skipped = tokenizer.decode(&wanted, true).unwrap();
            assert_eq!(skipped, case["decoded_skip_special"], "{files:?}: {text:?}");
            texts.push(text);
        }
        let batch = tokenizer.encode_batch(&texts).unwrap();
        assert!(
            batch
                .iter()
                .zip(cases)
                .all(|(found, case)| *found == ids(&case["ids"]))
        );
    }
}

#[test]
fn ids_alone_decode_as_in_transformers() {
    let (_dir, tokenizer) = with_files(&["tokenizer.json", "tokenizer_config.json"]);
    for case in expected()["decode_only"].as_array().unwrap() {
        let ids = ids(&case["ids"]);
        assert_eq!(
            tokenizer.decode(&ids, false).unwrap(),
            case["decoded"],
            "{ids:?}"
        );
    }
}

#[test]
fn tokens_and_ids_are_looked_up_both_ways() {
    let (_dir, tokenizer) = with_files(&["tokenizer.json"]);
    assert_eq!(tokenizer.vocab_size(), 300);
    assert_eq!(tokenizer.largest_id(), Some(299));
    assert_eq!(tokenizer.token_to_id("<|endoftext|>"), Some(299));
    assert_eq!(tokenizer.id_to_token(299).as_deref(), Some("<|endoftext|>"));
    assert_eq!(
        (
            tokenizer.token_to_id("no such token"),
            tokenizer.id_to_token(300)
        ),
        (None, None)
    );
}

#[test]
fn the_end_of_a_text_is_looked_for_in_order() {
    let config = |dir: &Path, name: &str, json: &str| std::fs::write(dir.join(name), json).unwrap();
    let (dir, _) = with_files(&["tokenizer.json"]);
    let eos = || Tokenizer::from_dir(dir.path()).unwrap().eos_id();
    assert_eq!(eos(), Some(299));
    // The default GPT-2 configuration has the id of another tokenizer.
    config(dir.path(), "config.json", r#"{"eos_token_id": 50256}"#);
    assert_eq!(eos(), Some(299));
    config(dir.path(), "config.json", r#"{"eos_token_id": [5, 6]}"#);
    assert_eq!(eos(), Some(5));
    config(
        dir.path(),
        "special_tokens_map.json",
        r#"{"eos_token": "!", "pad_token": "[PAD]"}"#,
    );
    assert_eq!(eos(), Some(0));
    config(
        dir.path(),
        "tokenizer_config.json",
        r#"{"eos_token": {"content": "\""}}"#,
    );
    assert_eq!(eos(), Some(1));
    // A special token that the vocabulary lacks is appended to it, and found in texts.
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(
        (tokenizer.pad_id(), tokenizer.vocab_size()),
        (Some(300), 301)
    );
    assert_eq!(tokenizer.encode("[PAD][PAD]").unwrap(), [300, 300]);
    assert_eq!(tokenizer.decode(&[300, 0], true).unwrap(), "!");
}

#[test]
fn padding_and_truncation_of_the_file_are_off() {
    let (dir, plain) = with_files(&["tokenizer.json"]);
    let path = dir.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0
    });
    json["padding"] = serde_json::json!({
        "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "!"
    });
    std::fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let text = "name : The Punter | food : Italian";
    assert_eq!(tokenizer.encode(text).unwrap(), plain.encode(text).unwrap());
    let batch = tokenizer.encode_batch(&[text, "a"]).unwrap();
    assert_eq!(
        batch,
        [plain.encode(text).unwrap(), plain.encode("a").unwrap()]
    );
}

#[test]
fn files_are_copied_byte_for_byte() {
    let names = [
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
    ];
    let (dir, tokenizer) = with_files(&names);
    let target = tempfile::tempdir().unwrap();
    let copies = tokenizer.save_to(target.path().join("new")).unwrap();
    assert_eq!(copies.len(), names.len());
    assert_eq!(tokenizer.files().len(), names.len());
    for name in names {
        let copy = std::fs::read(target.path().join("new").join(name)).unwrap();
        assert_eq!(copy, std::fs::read(fixture().join(name)).unwrap(), "{name}");
    }
    tokenizer.save_to(dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), names.len());
}

#[test]
fn a_directory_without_a_tokenizer_says_what_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture().join("vocab.json"), dir.path().join("vocab.json")).unwrap();
    let message = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("tokenizer.json") && message.contains("merges.txt"),
        "{message}"
    );
}

#[test]
fn hostile_files_are_errors() {
    let model = |body: &str| {
        format!(
            r#"{{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,"model":{{"type":"BPE",{body}}}}}"#
        )
    };
    let last_id = r#"{"version":"1.0","added_tokens":[{"id":4294967295,"content":"x","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"model":{"type":"BPE","vocab":{"x":4294967295},"merges":[]}}"#;
    for json in [
        String::new(),
        "{}".to_string(),
        "[".repeat(1_000_000),
        model(r#""vocab":{"a":-1},"merges":[]"#),
        model(r#""vocab":{"a":0},"merges":["a b"]"#),
        // The tokenizers crate panics on this one: the prefix is cut off from a token shorter than it.
        model(
            r#""vocab":{"a":0,"b":1,"ab":2},"merges":["a b"],"continuing_subword_prefix":"@@@@""#,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), &json).unwrap();
        let result = Tokenizer::from_dir(dir.path());
        let shown = &json[..json.len().min(300)];
        assert!(
            matches!(result, Err(ModelError::Tokenizer { .. })),
            "{shown}: {result:?}"
        );
    }
    // And on this one, where another token is added after the last id there is.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), last_id).unwrap();
    std::fs::write(
        dir.path().join("tokenizer_config.json"),
        r#"{"pad_token":"y"}"#,
    )
    .unwrap();
    if let Ok(tokenizer) = Tokenizer::from_dir(dir.path()) {
        assert_eq!(tokenizer.largest_id(), Some(u32::MAX));
    }
}

#[test]
fn vocabularies_and_merges_that_disagree_are_errors() {
    for (vocab, merges) in [
        (r#"{"a":0,"b":0}"#, "#version: 0.2\n"),
        (r#"{"a":0,"b":1}"#, "#version: 0.2\na b\n"),
        (r#"{"a":0,"b":1,"ab":2}"#, "#version: 0.2\na  b\n"),
        (r#"{"a":0,"b":1,"ab":2}"#, "\u{feff}a\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vocab.json"), vocab).unwrap();
        std::fs::write(dir.path().join("merges.txt"), merges).unwrap();
        let result = Tokenizer::from_dir(dir.path());
        assert!(
            matches!(result, Err(ModelError::Tokenizer { .. })),
            "{vocab}: {result:?}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("vocab.json"), r#"{"a":99999999999}"#).unwrap();
    std::fs::write(dir.path().join("merges.txt"), "").unwrap();
    assert!(matches!(
        Tokenizer::from_dir(dir.path()),
        Err(ModelError::Json { .. })
    ));
}
