//! `tokenizer.json`, used as described or only for its vocabulary.

use super::charsmap;
use super::family::Family;
use super::growth;
use super::vocabulary::{Pieces, Tokens, Vocabulary};
use super::{MAX_FILE_BYTES, guarded};
use crate::checkpoint::bounded::read_bounded;
use crate::error::ModelError;
use lora_core::files::DirectoryFile;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer};

/// Largest number of characters of a word that WordPiece divides. It compares every part of a word with the vocabulary, which takes
/// the cube of its length: a word of ten thousand letters would take minutes. BERT has 100.
const MAX_WORD: u64 = 1000;

/// Largest length of what is put before or behind each part of a word, in bytes. BERT has `##`, and CLIP `</w>`.
const MAX_AFFIX: usize = 64;

/// Added tokens by their id.
pub(super) type Added = BTreeMap<u32, AddedToken>;

/// The content of a `tokenizer.json`.
pub(super) struct WholeFile {
    bytes: Vec<u8>,
    added: Added,
    vocabulary: Option<Vocabulary>,
}

impl WholeFile {
    /// Reads the file, and checks the parts that the `tokenizers` crate would trust.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`], or the errors of reading a file.
    pub(super) fn read(file: &DirectoryFile) -> Result<Self, ModelError> {
        let fail = |message: String| ModelError::tokenizer(file.path(), message);
        let bytes = read_bounded(file, MAX_FILE_BYTES)?;
        let file: File = serde_json::from_slice(&bytes).map_err(|err| fail(err.to_string()))?;
        charsmap::check_normalizer(&file.normalizer).map_err(fail)?;
        for step in [&file.normalizer, &file.pre_tokenizer, &file.decoder] {
            growth::check(step).map_err(fail)?;
        }
        if let Some(model) = &file.model {
            model.check().map_err(fail)?;
            model.check_merges().map_err(fail)?;
        }
        let charsmap = charsmap::first_table(&file.normalizer).map_err(fail)?;
        let added = file.added_tokens.into_iter();
        Ok(Self {
            bytes,
            added: added.map(|added| (added.id, added.token)).collect(),
            vocabulary: file.model.and_then(|model| model.vocabulary(charsmap)),
        })
    }

    /// Builds the tokenizer that the file describes, without its padding and truncation: whoever trains or generates
    /// decides on the length of a text, and a tokenizer that truncates silently spoils an evaluation.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the description is invalid.
    pub(super) fn tokenizer(&self, path: &Path) -> Result<Tokenizer, ModelError> {
        guarded(path, || {
            let mut tokenizer = Tokenizer::from_bytes(&self.bytes)?;
            tokenizer.with_truncation(None)?;
            tokenizer.with_padding(None);
            Ok(tokenizer)
        })
    }

    /// Takes the vocabulary and its added tokens, for a tokenizer of `family`; `None` if the family is built on
    /// another kind of vocabulary.
    pub(super) fn parts_for(&mut self, family: Family) -> Option<(Vocabulary, Added)> {
        let vocabulary = self.vocabulary.take_if(|found| family.takes(found))?;
        Some((vocabulary, std::mem::take(&mut self.added)))
    }
}

/// Parts of `tokenizer.json` that are read here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    added_tokens: Vec<AddedWithId>,
    normalizer: serde_json::Value,
    pre_tokenizer: serde_json::Value,
    decoder: serde_json::Value,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct AddedWithId {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

/// Model of a tokenizer; old files omit its kind, which follows from the other fields.
#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: Option<Vocab>,
    merges: Option<Vec<Merge>>,
    max_input_chars_per_word: Option<u64>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vocab {
    Ids(Tokens),
    Scores(Vec<(String, f64)>),
}

/// A pair of tokens, apart or with a space between.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Model {
    /// Checks what a word may cost.
    fn check(&self) -> Result<(), String> {
        if let Some(most) = self
            .max_input_chars_per_word
            .filter(|&most| most > MAX_WORD)
        {
            return Err(format!(
                "`max_input_chars_per_word` is {most}, expected at most {MAX_WORD}"
            ));
        }
        let affixes = [
            ("continuing_subword_prefix", &self.continuing_subword_prefix),
            ("end_of_word_suffix", &self.end_of_word_suffix),
        ];
        for (key, affix) in affixes {
            if let Some(length) = affix.as_ref().map(String::len).filter(|&n| n > MAX_AFFIX) {
                return Err(format!(
                    "`{key}` has {length} bytes, expected at most {MAX_AFFIX}"
                ));
            }
        }
        Ok(())
    }

    /// Checks that the second token of each merge can lose the prefix of tokens within a word.
    ///
    /// `tokenizers` 0.23.2 cuts the bytes of it off and takes the rest for UTF-8 without a check: where the cut is within a character,
    /// a file would make a text that is none.
    ///
    /// # Errors
    /// A message with the token.
    fn check_merges(&self) -> Result<(), String> {
        let length = self
            .continuing_subword_prefix
            .as_ref()
            .map_or(0, String::len);
        let mut merges = self.merges.iter().flatten();
        let cut = merges.find(|merge| {
            merge
                .second()
                .is_some_and(|token| !token.is_char_boundary(length))
        });
        match cut.and_then(Merge::second) {
            Some(token) => Err(format!(
                "the token {token:?} of its merges is shorter than `continuing_subword_prefix`, or begins with another text"
            )),
            None => Ok(()),
        }
    }

    fn vocabulary(self, charsmap: Option<Vec<u8>>) -> Option<Vocabulary> {
        match (self.kind.as_deref(), self.vocab?, self.merges) {
            (Some("Unigram") | None, Vocab::Scores(pieces), None) => {
                Some(Vocabulary::Unigram(Pieces {
                    pieces,
                    unk_id: None,
                    charsmap,
                }))
            }
            (Some("BPE") | None, Vocab::Ids(tokens), Some(merges)) => {
                let merges = merges.into_iter().map(Merge::pair).collect::<Option<_>>();
                Some(Vocabulary::Bpe(tokens, merges?))
            }
            (Some("WordPiece") | None, Vocab::Ids(tokens), None) => {
                Some(Vocabulary::WordPiece(tokens))
            }
            _ => None,
        }
    }
}

impl Merge {
    fn pair(self) -> Option<(String, String)> {
        match self {
            Self::Pair(left, right) => Some((left, right)),
            Self::Line(line) => line
                .split_once(' ')
                .map(|(left, right)| (left.to_string(), right.to_string())),
        }
    }

    /// Returns the second token.
    fn second(&self) -> Option<&str> {
        match self {
            Self::Pair(_, second) => Some(second),
            Self::Line(line) => Some(line.split_once(' ')?.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<WholeFile, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, json).unwrap();
        WholeFile::read(&path.into())
    }

    #[test]
    fn the_kind_of_a_model_is_named_or_seen() {
        for json in [
            r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#,
            r#"{"model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}}"#,
        ] {
            let Some(Vocabulary::Bpe(tokens, merges)) = read(json).unwrap().vocabulary else {
                panic!("{json}");
            };
            assert_eq!((tokens["ab"], merges), (2, vec![("a".into(), "b".into())]));
        }
        let file = read(r#"{"model": {"vocab": [["a", -1.5]]}, "added_tokens": []}"#).unwrap();
        assert!(matches!(file.vocabulary, Some(Vocabulary::Unigram(_))));
        let file = read(r#"{"model": {"type": "WordPiece", "vocab": {"a": 0}}}"#).unwrap();
        assert!(matches!(file.vocabulary, Some(Vocabulary::WordPiece(_))));
        let file = read(r#"{"model": {"type": "WordLevel", "vocab": {"a": 0}}}"#).unwrap();
        assert!(file.vocabulary.is_none());
        let mut file = read(r#"{"model": {"type": "WordPiece", "vocab": {"a": 0}}}"#).unwrap();
        assert!(file.parts_for(Family::Roberta).is_none());
        assert!(file.parts_for(Family::Bert).is_some());
    }

    #[test]
    fn words_that_would_take_minutes_are_refused() {
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            let json = |affix: &str| {
                format!(r#"{{"model": {{"vocab": {{"a": 0}}, "{key}": "{affix}"}}}}"#)
            };
            assert!(read(&json("##")).is_ok());
            let message = read(&json(&"#".repeat(65))).err().unwrap().to_string();
            assert!(
                message.contains(&format!("`{key}` has 65 bytes")),
                "{message}"
            );
        }
        let json = |most: u64| {
            let model = format!(r#""type": "WordPiece", "max_input_chars_per_word": {most}"#);
            format!(r#"{{"model": {{{model}, "vocab": {{"a": 0}}}}}}"#)
        };
        assert!(read(&json(1000)).is_ok());
        let message = read(&json(1 << 63)).err().unwrap().to_string();
        assert!(message.contains("expected at most 1000"), "{message}");
    }

    #[test]
    fn a_table_that_claims_to_be_larger_than_it_is_is_refused() {
        let json = r#"{"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////wAA"}}"#;
        let message = read(json).err().unwrap().to_string();
        assert!(message.contains("shorter than its trie"), "{message}");
    }

    #[test]
    fn a_merge_that_would_be_cut_within_a_character_is_refused() {
        for (second, prefix, is_good) in [
            ("##b", "##", true),
            ("éb", "é", true),
            ("éb", "#", false),
            ("b", "##", false),
            ("b", "", true),
        ] {
            for merges in [
                format!(r#"["a {second}"]"#),
                format!(r#"[["a", "{second}"]]"#),
            ] {
                let json = format!(
                    r#"{{"model": {{"type": "BPE", "vocab": {{}}, "continuing_subword_prefix": "{prefix}", "merges": {merges}}}}}"#
                );
                assert_eq!(read(&json).is_ok(), is_good, "{json}");
            }
        }
    }
}
