//! How special tokens are written in `tokenizer_config.json` and `special_tokens_map.json`.

use super::family::Defaults;
use serde::Deserialize;
use std::collections::BTreeMap;
use tokenizers::AddedToken;

/// Tokens by their part, as in `special_tokens_map.json` and in `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NamedTokens {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    sep_token: Option<Token>,
    pad_token: Option<Token>,
    cls_token: Option<Token>,
    mask_token: Option<Token>,
    pub(super) additional_special_tokens: Option<Tokens>,
    /// The name that transformers 5 gives the same.
    pub(super) extra_special_tokens: Option<Tokens>,
}

impl NamedTokens {
    /// Part by part, what `self` says, else what `other` says; for the same token, what says more.
    pub(super) fn or(self, other: Self) -> Self {
        let part = |one: Option<Token>, other: Option<Token>| match (one, other) {
            (Some(one @ Token::Text(_)), Some(other)) if one.content() == other.content() => {
                Some(other)
            }
            (one, other) => one.or(other),
        };
        Self {
            bos_token: part(self.bos_token, other.bos_token),
            eos_token: part(self.eos_token, other.eos_token),
            unk_token: part(self.unk_token, other.unk_token),
            sep_token: part(self.sep_token, other.sep_token),
            pad_token: part(self.pad_token, other.pad_token),
            cls_token: part(self.cls_token, other.cls_token),
            mask_token: part(self.mask_token, other.mask_token),
            additional_special_tokens: self
                .additional_special_tokens
                .or(other.additional_special_tokens),
            extra_special_tokens: self.extra_special_tokens.or(other.extra_special_tokens),
        }
    }

    pub(super) fn in_order(&self) -> impl Iterator<Item = &Token> {
        let named = [
            &self.bos_token,
            &self.eos_token,
            &self.unk_token,
            &self.sep_token,
            &self.pad_token,
            &self.cls_token,
            &self.mask_token,
        ];
        named.into_iter().flatten().chain(self.extra())
    }

    /// Those without a part.
    pub(super) fn extra(&self) -> impl Iterator<Item = &Token> {
        let lists = [&self.additional_special_tokens, &self.extra_special_tokens];
        lists.into_iter().flatten().flat_map(Tokens::all)
    }

    /// Those with a part in the order of [`in_order`](Self::in_order), with the defaults of a family for the parts that
    /// are open.
    pub(super) fn parts(&self, defaults: &Defaults) -> [Option<Token>; 7] {
        let part = |token: &Option<Token>, default: Option<&str>| {
            token
                .clone()
                .or_else(|| default.map(|text| Token::Text(text.to_string())))
        };
        [
            part(&self.bos_token, defaults.bos),
            part(&self.eos_token, defaults.eos),
            part(&self.unk_token, Some(defaults.unk)),
            part(&self.sep_token, defaults.sep),
            part(&self.pad_token, defaults.pad),
            part(&self.cls_token, defaults.cls),
            part(&self.mask_token, defaults.mask),
        ]
    }

    /// Those with a part in the order of [`in_order`](Self::in_order), as far as they are written.
    pub(super) fn as_written(&self) -> [Option<Token>; 7] {
        let parts = [
            &self.bos_token,
            &self.eos_token,
            &self.unk_token,
            &self.sep_token,
            &self.pad_token,
            &self.cls_token,
            &self.mask_token,
        ];
        parts.map(Clone::clone)
    }
}

/// A list of tokens, with or without names.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Tokens {
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
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Token {
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
    pub(super) fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Full { content, .. } => content,
        }
    }

    pub(super) fn to_added(&self, special: bool) -> AddedToken {
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
pub(super) struct AddedEntry {
    #[serde(flatten)]
    pub(super) token: Token,
    #[serde(default)]
    pub(super) special: bool,
}
