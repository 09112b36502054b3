//! The tokens with a meaning of their own, gathered from the files beside a tokenizer.

use super::MAX_FILE_BYTES;
use crate::checkpoint::bounded::read_json;
use crate::error::ModelError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;
use tokenizers::AddedToken;

/// The one special token of GPT-2, which begins, ends and replaces.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// What the files beside a tokenizer say about its tokens.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    /// The token that ends a text.
    pub(super) eos: Option<String>,
    /// The token that begins a text.
    pub(super) bos: Option<String>,
    /// The token that fills up short texts.
    pub(super) pad: Option<String>,
    /// Tokens beyond the model's vocabulary, in the order of their ids, then the special ones in the order in which
    /// `transformers` goes through them.
    pub(super) tokens: Vec<AddedToken>,
    /// Whether a space is put before the first word.
    pub(super) add_prefix_space: bool,
    /// The ids of `config.json`, in case no token is named.
    pub(super) config_ids: ConfigIds,
}

/// Ids from `config.json`; where a list is given, its first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConfigIds {
    pub(super) eos: Option<u32>,
    pub(super) bos: Option<u32>,
    pub(super) pad: Option<u32>,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `config.json` of a directory,
    /// as far as they are there.
    ///
    /// # Errors
    ///
    /// [`ModelError::Json`], [`ModelError::TooLarge`], [`ModelError::Malformed`] or [`ModelError::Io`] where one is
    /// there and cannot be read.
    pub(super) fn read(dir: &Path) -> Result<Self, ModelError> {
        let config: TokenizerConfig = read_if_there(&dir.join("tokenizer_config.json"))?;
        let map: NamedTokens = read_if_there(&dir.join("special_tokens_map.json"))?;
        let added: BTreeMap<String, u32> = read_if_there(&dir.join("added_tokens.json"))?;
        let model: ModelConfig = read_if_there(&dir.join("config.json"))?;

        let named = config.named.or(map);
        let mut tokens = by_id(config.added_tokens_decoder, added);
        tokens.extend(named.in_order().map(|token| token.to_added(true)));
        let content =
            |token: &Option<Token>| token.as_ref().map(|token| token.content().to_string());
        Ok(Self {
            eos: content(&named.eos_token),
            bos: content(&named.bos_token),
            pad: content(&named.pad_token),
            tokens,
            add_prefix_space: config.add_prefix_space.unwrap_or(false),
            config_ids: ConfigIds {
                eos: first_id(&model.eos_token_id),
                bos: first_id(&model.bos_token_id),
                pad: first_id(&model.pad_token_id),
            },
        })
    }
}

fn read_if_there<T: DeserializeOwned + Default>(path: &Path) -> Result<T, ModelError> {
    if path.exists() {
        read_json(path, MAX_FILE_BYTES)
    } else {
        Ok(T::default())
    }
}

/// The tokens listed with their ids, in the order of these: new ids are given out in this order.
fn by_id(decoder: BTreeMap<u32, AddedEntry>, added: BTreeMap<String, u32>) -> Vec<AddedToken> {
    let mut tokens: BTreeMap<u32, AddedToken> = added
        .into_iter()
        .map(|(content, id)| (id, AddedToken::from(content, false)))
        .collect();
    tokens.extend(
        decoder
            .into_iter()
            .map(|(id, entry)| (id, entry.token.to_added(entry.special))),
    );
    tokens.into_values().collect()
}

/// An id, or the first of a list of ids. Anything else is no id of ours: -1 and null stand for none.
fn first_id(value: &serde_json::Value) -> Option<u32> {
    let one = value.as_array().map_or(Some(value), |ids| ids.first());
    one.and_then(serde_json::Value::as_u64)
        .and_then(|id| u32::try_from(id).ok())
}

/// `tokenizer_config.json`, as far as it is about tokens.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    #[serde(flatten)]
    named: NamedTokens,
    added_tokens_decoder: BTreeMap<u32, AddedEntry>,
    add_prefix_space: Option<bool>,
}

/// `config.json`, as far as it is about tokens.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelConfig {
    eos_token_id: serde_json::Value,
    bos_token_id: serde_json::Value,
    pad_token_id: serde_json::Value,
}

/// Tokens by their part, as in `special_tokens_map.json` and in `tokenizer_config.json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedTokens {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    sep_token: Option<Token>,
    pad_token: Option<Token>,
    cls_token: Option<Token>,
    mask_token: Option<Token>,
    additional_special_tokens: Option<Tokens>,
    /// The name that transformers 5 gives the same.
    extra_special_tokens: Option<Tokens>,
}

impl NamedTokens {
    /// Part by part, what `self` says, else what `other` says.
    fn or(self, other: Self) -> Self {
        Self {
            bos_token: self.bos_token.or(other.bos_token),
            eos_token: self.eos_token.or(other.eos_token),
            unk_token: self.unk_token.or(other.unk_token),
            sep_token: self.sep_token.or(other.sep_token),
            pad_token: self.pad_token.or(other.pad_token),
            cls_token: self.cls_token.or(other.cls_token),
            mask_token: self.mask_token.or(other.mask_token),
            additional_special_tokens: self
                .additional_special_tokens
                .or(other.additional_special_tokens),
            extra_special_tokens: self.extra_special_tokens.or(other.extra_special_tokens),
        }
    }

    fn in_order(&self) -> impl Iterator<Item = &Token> {
        let named = [
            &self.bos_token,
            &self.eos_token,
            &self.unk_token,
            &self.sep_token,
            &self.pad_token,
            &self.cls_token,
            &self.mask_token,
        ];
        let lists = [&self.additional_special_tokens, &self.extra_special_tokens];
        named
            .into_iter()
            .flatten()
            .chain(lists.into_iter().flatten().flat_map(Tokens::all))
    }
}

/// A list of tokens, with or without names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tokens {
    List(Vec<Token>),
    Named(BTreeMap<String, Token>),
}

impl Tokens {
    fn all(&self) -> Box<dyn Iterator<Item = &Token> + '_> {
        match self {
            Self::List(tokens) => Box::new(tokens.iter()),
            Self::Named(tokens) => Box::new(tokens.values()),
        }
    }
}

/// A token, written as its text or with the rules for finding it in a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Full {
        content: String,
        #[serde(default)]
        single_word: bool,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        normalized: Option<bool>,
    },
}

impl Token {
    fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Full { content, .. } => content,
        }
    }

    fn to_added(&self, special: bool) -> AddedToken {
        let plain = AddedToken::from(self.content(), special);
        match self {
            Self::Text(_) => plain,
            Self::Full {
                single_word,
                lstrip,
                rstrip,
                normalized,
                ..
            } => plain
                .single_word(*single_word)
                .lstrip(*lstrip)
                .rstrip(*rstrip)
                .normalized(normalized.unwrap_or(!special)),
        }
    }
}

/// An entry of `added_tokens_decoder`.
#[derive(Deserialize)]
struct AddedEntry {
    #[serde(flatten)]
    token: Token,
    #[serde(default)]
    special: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<SpecialTokens, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        SpecialTokens::read(dir.path())
    }

    fn contents(special: &SpecialTokens) -> Vec<&str> {
        special
            .tokens
            .iter()
            .map(|token| token.content.as_str())
            .collect()
    }

    #[test]
    fn a_directory_without_them_has_none() {
        let special = read(&[]).unwrap();
        assert!(special.eos.is_none() && special.tokens.is_empty() && !special.add_prefix_space);
    }

    #[test]
    fn the_tokenizer_config_comes_before_the_map() {
        let special = read(&[
            (
                "tokenizer_config.json",
                r#"{"eos_token": {"content": "</s>", "lstrip": true}, "pad_token": null}"#,
            ),
            (
                "special_tokens_map.json",
                r#"{"eos_token": "no", "bos_token": "<s>", "pad_token": "<pad>"}"#,
            ),
        ])
        .unwrap();
        assert_eq!(special.eos.as_deref(), Some("</s>"));
        assert_eq!(special.bos.as_deref(), Some("<s>"));
        assert_eq!(special.pad.as_deref(), Some("<pad>"));
        assert_eq!(contents(&special), ["<s>", "</s>", "<pad>"]);
        assert!(special.tokens[1].lstrip && special.tokens[1].special);
    }

    #[test]
    fn added_tokens_come_in_the_order_of_their_ids() {
        let special = read(&[
            (
                "tokenizer_config.json",
                r#"{"added_tokens_decoder": {"12": {"content": "c", "special": true}, "9": {"content": "a", "special": false, "normalized": false}},
                    "additional_special_tokens": ["x", {"content": "y"}], "extra_special_tokens": {"image": "z"}}"#,
            ),
            ("added_tokens.json", r#"{"b": 10}"#),
        ])
        .unwrap();
        assert_eq!(contents(&special), ["a", "b", "c", "x", "y", "z"]);
        let special_flags: Vec<bool> = special.tokens.iter().map(|token| token.special).collect();
        assert_eq!(special_flags, [false, false, true, true, true, true]);
    }

    #[test]
    fn ids_of_the_model_may_be_one_many_or_none() {
        let special = read(&[(
            "config.json",
            r#"{"eos_token_id": [7, 8], "bos_token_id": -1, "pad_token_id": 3, "vocab_size": 300}"#,
        )])
        .unwrap();
        let ids = special.config_ids;
        assert_eq!((ids.eos, ids.bos, ids.pad), (Some(7), None, Some(3)));
    }

    #[test]
    fn files_that_make_no_sense_are_errors() {
        for json in [
            "",
            "[]",
            r#"{"eos_token": 5}"#,
            r#"{"added_tokens_decoder": {"x": {}}}"#,
        ] {
            let result = read(&[("tokenizer_config.json", json)]);
            assert!(matches!(result, Err(ModelError::Json { .. })), "{json}");
        }
    }
}
