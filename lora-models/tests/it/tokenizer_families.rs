//! Every kind of tokenizer directory gives what `AutoTokenizer` of `transformers` gives; hostile files are errors.

mod directories;

use lora_models::ModelError;
use lora_models::tokenizer::Tokenizer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer_families")
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

/// Texts to encode. Second texts and lengths may be missing.
#[derive(Deserialize)]
struct Cases {
    texts: Vec<String>,
    pairs: Vec<(String, Option<String>)>,
    words: Vec<Vec<String>>,
    lengths: Vec<Option<usize>>,
}

/// A directory: its files with where they are kept, and small ones with their content.
#[derive(Deserialize)]
struct Directory {
    files: BTreeMap<String, String>,
    configs: BTreeMap<String, Value>,
}

/// Directories with the same encodings. Only encodings that differ from those of the group `like` are written.
#[derive(Deserialize)]
struct Group {
    like: Option<String>,
    directories: Vec<Directory>,
}

/// Expected encodings of every directory in a group, by the index of the case; pairs and words also by that of the length.
#[derive(Deserialize)]
struct Expected {
    /// One text of so many is there.
    every: usize,
    size: usize,
    special_ids: BTreeMap<String, Option<u32>>,
    texts: Rows<usize, Vec<Value>>,
    pairs: Rows<(usize, usize), Option<Cut>>,
    words: Rows<(usize, usize), Option<Words>>,
}

#[derive(Deserialize)]
#[serde(
    from = "Vec<(K, V)>",
    bound = "K: Deserialize<'de> + Ord, V: Deserialize<'de>"
)]
struct Rows<K, V>(BTreeMap<K, V>);

impl<K: Ord, V> From<Vec<(K, V)>> for Rows<K, V> {
    fn from(rows: Vec<(K, V)>) -> Self {
        Self(rows.into_iter().collect())
    }
}

/// Ids, type ids, and which are special.
type Cut = (String, String, String);

/// Likewise, with the words of the tokens, -1 for none.
type Words = (String, String, String, Vec<i64>);

impl Expected {
    fn read(name: &str, like: Option<&str>) -> Self {
        let mut expected: Self = read(&format!("{name}.json"));
        if let Some(like) = like {
            let base = Self::read(like, None);
            let texts = base
                .texts
                .0
                .into_iter()
                .filter(|(number, _)| number.is_multiple_of(expected.every));
            fill(&mut expected.texts.0, texts);
            fill(&mut expected.pairs.0, base.pairs.0);
            fill(&mut expected.words.0, base.words.0);
        }
        expected
    }
}

fn fill<K: Ord, V>(rows: &mut BTreeMap<K, V>, others: impl IntoIterator<Item = (K, V)>) {
    for (key, value) in others {
        rows.entry(key).or_insert(value);
    }
}

/// As the fixtures have them: two digits of base 32 for each id.
fn packed(ids: &[u32]) -> String {
    let symbols = b"0123456789abcdefghijklmnopqrstuv";
    let digits = ids.iter().flat_map(|&id| [id / 32, id % 32]);
    digits
        .map(|digit| char::from(symbols[digit as usize]))
        .collect()
}

impl Directory {
    fn write(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, source) in &self.files {
            std::fs::copy(fixtures().join(source), dir.path().join(name)).unwrap();
        }
        for (name, content) in &self.configs {
            let path = dir.path().join(name);
            let mut json = content.clone();
            // A change to that file.
            if self.files.contains_key(name) {
                json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                for (key, value) in content.as_object().unwrap() {
                    json[key] = value.clone();
                }
            }
            std::fs::write(&path, json.to_string()).unwrap();
        }
        dir
    }
}

/// The directories of a group.
fn group(name: &str) -> Vec<Directory> {
    let mut groups: BTreeMap<String, Group> = read("groups.json");
    groups.remove(name).unwrap().directories
}

fn digits<T: Copy + Into<u32>>(values: &[T]) -> String {
    let digits = values.iter().map(|&value| value.into().to_string());
    digits.collect()
}

/// Calls `check` with every tokenizer of every group, what is expected of it, and its name.
fn for_each(check: impl Fn(&Tokenizer, &Expected, &str)) {
    let groups: BTreeMap<String, Group> = read("groups.json");
    assert_eq!(groups.len(), 18);
    for (name, group) in &groups {
        let expected = Expected::read(name, group.like.as_deref());
        for (number, directory) in group.directories.iter().enumerate() {
            let dir = directory.write();
            let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
            check(&tokenizer, &expected, &format!("{name} {number}"));
        }
    }
}

#[test]
fn texts_have_the_ids_of_transformers_and_decode_alike() {
    let cases: Cases = read("cases.json");
    assert!(cases.texts.len() >= 300);
    for_each(|tokenizer, expected, name| {
        assert_eq!(
            expected.texts.0.len(),
            cases.texts.len().div_ceil(expected.every),
            "{name}"
        );
        for (number, wanted) in &expected.texts.0 {
            let text = cases.texts[*number].as_str();
            let found = tokenizer.encode_inputs(text, None, None).unwrap();
            assert_eq!(packed(&found.ids), wanted[0], "{name}: {text:?}");
            let ids = &found.ids;
            if let Some(decoded) = wanted.get(1) {
                let decoded = decoded.as_str().unwrap_or(text);
                assert_eq!(
                    tokenizer.decode(ids, true).unwrap(),
                    decoded,
                    "{name}: {text:?}"
                );
            }
            if let Some(decoded) = wanted.get(2) {
                assert_eq!(
                    tokenizer.decode(ids, false).unwrap(),
                    *decoded,
                    "{name}: {text:?}"
                );
            }
            // Without special tokens around them, the ids are the same.
            let inner = ids
                .iter()
                .zip(&found.special)
                .filter(|&(_, &special)| !special);
            let inner: Vec<u32> = inner.map(|(&id, _)| id).collect();
            assert_eq!(tokenizer.encode(text).unwrap(), inner, "{name}: {text:?}");
        }
        let texts = || cases.texts.iter().map(String::as_str);
        let inputs: Vec<(&str, Option<&str>)> = texts().map(|text| (text, None)).collect();
        let batch = tokenizer.encode_inputs_batch(&inputs, Some(5)).unwrap();
        for (text, found) in texts().zip(batch) {
            let alone = tokenizer.encode_inputs(text, None, Some(5)).unwrap();
            assert_eq!(found, alone, "{name}: {text:?}");
        }
    });
}

#[test]
fn pairs_are_joined_and_cut_as_in_transformers() {
    let cases: Cases = read("cases.json");
    for_each(|tokenizer, expected, name| {
        let pairs = &expected.pairs.0;
        // GPT-2 has no special tokens to find no room for.
        let no_room = pairs.values().any(Option::is_none);
        assert!(
            pairs.len() > 40 && no_room != name.starts_with("gpt2"),
            "{name}"
        );
        for ((pair, length), wanted) in pairs {
            let ((first, second), length) = (&cases.pairs[*pair], cases.lengths[*length]);
            let about = format!("{name}: {first:?}, {second:?}, {length:?}");
            let input = (first.as_str(), second.as_deref());
            let found = tokenizer.encode_inputs(input.0, input.1, length);
            let Some((ids, types, special)) = wanted else {
                let message = found.unwrap_err().to_string();
                assert!(message.contains("no room"), "{about}: {message}");
                assert!(
                    tokenizer.encode_inputs_batch(&[input], length).is_err(),
                    "{about}"
                );
                continue;
            };
            let found = found.unwrap();
            assert_eq!(&packed(&found.ids), ids, "{about}");
            assert_eq!(&digits(&found.type_ids), types, "{about}");
            assert_eq!(&digits(&found.special), special, "{about}");
            assert_eq!(found.words, vec![None; found.ids.len()], "{about}");
            let whole = tokenizer.encode_inputs(input.0, input.1, None).unwrap();
            assert_eq!(
                (found.ids.len() + found.cut, whole.cut),
                (whole.ids.len(), 0),
                "{about}"
            );
            let batch = [(first.as_str(), None), input];
            let batch = tokenizer.encode_inputs_batch(&batch, length).unwrap();
            assert_eq!(batch[1], found, "{about}");
        }
    });
}

#[test]
fn words_are_followed_as_in_transformers() {
    let cases: Cases = read("cases.json");
    for_each(|tokenizer, expected, name| {
        assert!(expected.words.0.len() > 20);
        for ((words, length), wanted) in &expected.words.0 {
            let words: Vec<&str> = cases.words[*words].iter().map(String::as_str).collect();
            let length = cases.lengths[*length];
            let about = format!("{name}: {words:?}, {length:?}");
            let found = tokenizer.encode_words(&words, length);
            let Some((ids, types, special, word_ids)) = wanted else {
                assert!(found.is_err(), "{about}");
                continue;
            };
            let found = found.unwrap();
            assert_eq!(&packed(&found.ids), ids, "{about}");
            assert_eq!(&digits(&found.type_ids), types, "{about}");
            assert_eq!(&digits(&found.special), special, "{about}");
            let found = found.words.iter().map(|word| word.map_or(-1, i64::from));
            assert_eq!(&found.collect::<Vec<i64>>(), word_ids, "{about}");
        }
    });
}

#[test]
fn ids_with_a_meaning_are_those_of_transformers() {
    for_each(|tokenizer, expected, name| {
        assert_eq!(tokenizer.vocab_size(), expected.size, "{name}");
        assert_eq!(
            tokenizer.largest_id().unwrap() as usize + 1,
            expected.size,
            "{name}"
        );
        assert_eq!(tokenizer.pad_type_id(), 0, "{name}");
        let mut found = vec![
            ("eos", tokenizer.eos_id()),
            ("sep", tokenizer.sep_id()),
            ("pad", tokenizer.pad_id()),
            ("cls", tokenizer.cls_id()),
            ("mask", tokenizer.mask_id()),
        ];
        // GPT-2's one special token is the end of a text, and not also its beginning and what is unknown.
        if !name.starts_with("gpt2") {
            found.extend([("bos", tokenizer.bos_id()), ("unk", tokenizer.unk_id())]);
        }
        for (part, id) in found {
            assert_eq!(id, expected.special_ids[part], "{name}: {part}");
        }
    });
}

#[test]
fn a_batch_larger_than_a_chunk_keeps_its_order() {
    let tokenizer = Tokenizer::from_dir(group("bert_cased")[0].write().path()).unwrap();
    let texts: Vec<String> = (0..2500).map(|number| format!("the {number}")).collect();
    let second = |number: usize| number.is_multiple_of(3).then_some("a second text");
    let inputs: Vec<(&str, Option<&str>)> = texts
        .iter()
        .enumerate()
        .map(|(number, text)| (text.as_str(), second(number)))
        .collect();
    let batch = tokenizer.encode_inputs_batch(&inputs, Some(9)).unwrap();
    assert_eq!(batch.len(), inputs.len());
    for ((first, second), found) in inputs.iter().zip(&batch).step_by(7) {
        assert_eq!(
            found,
            &tokenizer.encode_inputs(first, *second, Some(9)).unwrap()
        );
    }
}

/// The pieces cut off two texts, each of one with each of the other, are more than memory holds.
#[test]
fn long_pairs_cut_short_take_no_more_than_they_are() {
    let tokenizer = Tokenizer::from_dir(group("bert_cased")[0].write().path()).unwrap();
    let text = "the area ".repeat(20_000);
    let found = tokenizer
        .encode_inputs(&text, Some(&text), Some(7))
        .unwrap();
    assert_eq!((found.ids.len(), found.cut), (7, 80_000 - 4));
}
