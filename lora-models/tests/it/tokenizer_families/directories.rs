//! Directories of tokenizers: the family by its files, their copies, and errors.

use super::*;

/// A directory with these files, given by their content.
fn with(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

/// The lists of added tokens replace each other: a token that one of them lacked was gone when the files were read.
#[test]
fn new_tokens_are_there_when_the_files_are_read_again() {
    let groups: BTreeMap<String, Group> = read("groups.json");
    let new = ["<User>", "<bot>"].map(String::from);
    for (name, group) in groups {
        for (number, directory) in group.directories.iter().enumerate() {
            let (what, dir) = (format!("{name} {number}"), directory.write());
            let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
            let (extended, files) = tokenizer.with_tokens(&new).unwrap();
            let files = files.iter();
            let copy = with(
                &files
                    .map(|(name, bytes)| (&name[..], &bytes[..]))
                    .collect::<Vec<_>>(),
            );
            let config = dir.path().join("config.json");
            if config.exists() {
                std::fs::copy(config, copy.path().join("config.json")).unwrap();
            }
            let again = Tokenizer::from_dir(copy.path()).unwrap();
            assert_eq!(again.vocab_size(), tokenizer.vocab_size() + 2, "{what}");
            for token in &new {
                let id = extended.token_to_id(token);
                assert!(id >= tokenizer.largest_id(), "{what}");
                assert_eq!(again.token_to_id(token), id, "{what}");
            }
            for text in ["a <User>pub<bot>.", "<USER> <bot> <bot>b"] {
                let ids = extended.encode(text).unwrap();
                assert_eq!(again.encode(text).unwrap(), ids, "{what}: {text}");
            }
        }
    }
}

/// `add_tokens(["<User>"])` of transformers 5 on this BERT finds `<USER>` too.
#[test]
fn new_tokens_are_found_after_normalization_as_in_transformers() {
    let dir = group("bert_uncased").swap_remove(0).write();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let (tokenizer, _) = tokenizer.with_tokens(&["<User>".into()]).unwrap();
    let id = tokenizer.token_to_id("<User>").unwrap();
    let ids = tokenizer.encode("a <USER> b <User>").unwrap();
    assert_eq!(
        ids.iter().filter(|&&found| found == id).count(),
        2,
        "{ids:?}"
    );
}

/// The `tokenizers` crate gives the new token the id of `d`, and transformers uses it so.
#[test]
fn a_new_token_never_gets_the_id_of_another() {
    let file = |last: u32| {
        let vocab = serde_json::json!({"a": 0, "b": 1, "c": 2, "d": last});
        let model = serde_json::json!({"type": "WordLevel", "vocab": vocab, "unk_token": "a"});
        serde_json::json!({"version": "1.0", "added_tokens": [], "normalizer": null, "model": model,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
            "truncation": null, "padding": null})
        .to_string()
    };
    let open = |last| {
        let dir = with(&[("tokenizer.json", file(last).as_bytes())]);
        Tokenizer::from_dir(dir.path()).map(|tokenizer| (tokenizer, dir))
    };
    let (gap, _dir) = open(5).unwrap();
    let one = gap.with_tokens(&["<x>".into()]).unwrap().0;
    assert_eq!(one.token_to_id("<x>"), Some(4));
    let error = gap.with_tokens(&["<x>".into(), "<y>".into()]);
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("`<y>`") && message.contains("5, which `d` has"),
        "{message}"
    );
    // A token that another file of the directory names is added while it is loaded.
    let map = r#"{"eos_token": "<end>"}"#;
    let files = [
        ("tokenizer.json", file(4).into_bytes()),
        ("special_tokens_map.json", map.into()),
    ];
    let dir = with(&files.each_ref().map(|(name, bytes)| (*name, &bytes[..])));
    assert!(
        self::message(&dir).contains("4, which `d` has"),
        "{}",
        self::message(&dir)
    );
}

fn message(dir: &TempDir) -> String {
    Tokenizer::from_dir(dir.path()).unwrap_err().to_string()
}

/// `transformers` does not load these: nothing in them says what they are.
#[test]
fn a_directory_that_nothing_names_is_told_by_its_files() {
    for (name, number) in [
        ("bert_uncased", 0),
        ("roberta", 0),
        ("deberta_v2", 0),
        ("xlmr", 0),
        ("gpt2", 0),
    ] {
        let mut directory = group(name).swap_remove(number);
        let named = Tokenizer::from_dir(directory.write().path()).unwrap();
        directory.configs.clear();
        let unnamed = Tokenizer::from_dir(directory.write().path()).unwrap();
        for text in ["The [MASK] Punter", "a <mask> Ａ é", ""] {
            let wanted = named.encode_inputs(text, Some(text), Some(12)).unwrap();
            let found = unnamed.encode_inputs(text, Some(text), Some(12)).unwrap();
            assert_eq!(found, wanted, "{name}: {text:?}");
        }
        assert_eq!(unnamed.pad_id(), named.pad_id(), "{name}");
    }
    // tokenizer.json is taken as it stands then, and its special tokens are known by their usual names.
    let mut directory = group("bert_uncased").swap_remove(2);
    directory.configs.clear();
    let tokenizer = Tokenizer::from_dir(directory.write().path()).unwrap();
    let found = tokenizer.encode_inputs("THE", Some("the"), None).unwrap();
    assert_eq!(
        (found.ids.len(), &*found.type_ids),
        (5, &[0, 0, 0, 1, 1][..])
    );
    assert_eq!(found.ids[1], found.ids[3]);
    assert_eq!(
        (tokenizer.cls_id(), tokenizer.sep_id(), tokenizer.pad_id()),
        (Some(3), Some(4), Some(0))
    );
    assert_eq!(
        (tokenizer.mask_id(), tokenizer.unk_id(), tokenizer.eos_id()),
        (Some(5), Some(2), None)
    );
}

#[test]
fn a_directory_that_could_be_several_things_is_an_error_that_says_so() {
    let both = with(&[
        ("vocab.txt", b"[UNK]\n[CLS]\n[SEP]\n"),
        ("vocab.json", br#"{"a": 0}"#),
        ("merges.txt", b""),
    ]);
    let found = message(&both);
    assert!(
        found.contains("vocab.txt and vocab.json with merges.txt"),
        "{found}"
    );
    assert!(
        found.contains("tokenizer_class") && found.contains("BertTokenizer"),
        "{found}"
    );
    std::fs::write(both.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    Tokenizer::from_dir(both.path()).unwrap();

    // A named family whose files are not there, and a class that is not known.
    std::fs::write(
        both.path().join("config.json"),
        r#"{"model_type": "deberta-v2"}"#,
    )
    .unwrap();
    let found = message(&both);
    assert!(found.contains("tokenizer.json, spm.model"), "{found}");
    let class = br#"{"tokenizer_class": "T5Tokenizer"}"#;
    let other = with(&[("spm.model", b""), ("tokenizer_config.json", class)]);
    let found = message(&other);
    assert!(
        found.contains("`T5Tokenizer`") && found.contains("tokenizer.json"),
        "{found}"
    );
    // A SentencePiece model of somebody else.
    let model = std::fs::read(fixtures().join("files/xlmr_small.model")).unwrap();
    let found = message(&with(&[("spm.model", &model)]));
    assert!(found.contains("special tokens of DeBERTa"), "{found}");
}

#[test]
fn files_of_each_family_are_copied() {
    for (name, count) in [
        ("bert_cased", 2),
        ("roberta", 2),
        ("deberta_v2", 1),
        ("xlmr", 1),
    ] {
        let dir = group(name).swap_remove(0).write();
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        let target = tempfile::tempdir().unwrap();
        let copies = tokenizer.save_to(target.path()).unwrap();
        assert_eq!(
            (copies.len(), tokenizer.files().len()),
            (count, count),
            "{name}"
        );
        for (file, copy) in tokenizer.files().iter().zip(copies) {
            assert_eq!(std::fs::read(file).unwrap(), std::fs::read(copy).unwrap());
        }
    }
}

#[test]
fn hostile_vocabularies_are_errors() {
    let config = (r"config.json", br#"{"model_type": "bert"}"#.as_slice());
    for (vocab, part) in [
        (b"".as_slice(), "no tokens"),
        (b"[UNK]\na\na\n", "lines 2 and 3"),
        (b"[UNK]\n\xff\n", "UTF-8"),
        (b"[CLS]\n[SEP]\n", "\"[UNK]\""),
    ] {
        let dir = with(&[config, ("vocab.txt", vocab)]);
        let error = Tokenizer::from_dir(dir.path()).unwrap_err();
        assert!(matches!(error, ModelError::Tokenizer { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    // Ids with a gap, in which the token added after as many as there are meets another.
    let json =
        br#"{"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 3}}}"#;
    let found = message(&with(&[config, ("tokenizer.json", json)]));
    assert!(found.contains("the id 3"), "{found}");
    let json = br#"{"model": {"type": "WordPiece", "vocab": {"[UNK]": 4294967295}}}"#;
    let dir = with(&[config, ("tokenizer.json", json)]);
    if let Ok(tokenizer) = Tokenizer::from_dir(dir.path()) {
        assert_eq!(tokenizer.largest_id(), Some(u32::MAX));
    }
}

/// Models that are cut off or changed are read or refused; one that is read encodes, or returns an error.
#[test]
fn damaged_sentence_piece_models_are_errors_or_harmless() {
    for (name, file) in [("xlm-roberta", "xlmr_small"), ("deberta-v2", "deberta_v2")] {
        let whole = std::fs::read(fixtures().join(format!("files/{file}.model"))).unwrap();
        let config = format!(r#"{{"model_type": "{name}"}}"#);
        let target = if file == "deberta_v2" {
            "spm.model"
        } else {
            "sentencepiece.bpe.model"
        };
        let load = |bytes: &[u8]| {
            let dir = with(&[("config.json", config.as_bytes()), (target, bytes)]);
            Tokenizer::from_dir(dir.path())
        };
        let mut refused = 0;
        for length in (0..whole.len()).step_by(97) {
            // A cut between two pieces leaves a model of fewer pieces.
            refused += usize::from(load(&whole[..length]).is_err());
        }
        assert!(refused > whole.len() / 97 / 2, "{refused}");
        // Every byte that matters is set to what makes lengths, ids and indices as large as they can be.
        for at in (0..whole.len()).step_by(41) {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(tokenizer) = load(&bytes) {
                    let text = "The Ａ Punter \u{fb01} ½ é";
                    tokenizer.encode_inputs(text, Some("x"), Some(8)).unwrap();
                }
            }
        }
        let message = load(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f])
            .unwrap_err()
            .to_string();
        assert!(message.contains("4294967295 bytes"), "{message}");
    }
}
