//! Entries for special tokens in `tokenizer_config.json` and `special_tokens_map.json`.

use super::family::Family;
use super::roles::{ByRole, Role, RoleTexts};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tokenizers::AddedToken;

/// Special tokens of `special_tokens_map.json` or `tokenizer_config.json`.
#[derive(Debug, Default)]
pub(super) struct SpecialTokenMap {
    pub(super) by_role: ByRole<Option<Token>>,
    /// List of tokens without a role: `additional_special_tokens`.
    pub(super) additional: Option<TokenList>,
    /// `extra_special_tokens`, the name of the same list in transformers 5, which counts before the other.
    pub(super) extra: Option<TokenList>,
}

impl<'de> Deserialize<'de> for SpecialTokenMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Map::deserialize(deserializer)?;
        let mut map = Self::default();
        for role in Role::ALL {
            map.by_role[role] = take(&mut object, role.key())?;
        }
        map.additional = take(&mut object, "additional_special_tokens")?;
        map.extra = take(&mut object, "extra_special_tokens")?;
        Ok(map)
    }
}

/// Takes the value of a key; `None` if it is absent or null.
fn take<T: DeserializeOwned, E: Error>(
    object: &mut Map<String, Value>,
    key: &str,
) -> Result<Option<T>, E> {
    let value = object.remove(key).unwrap_or_default();
    serde_json::from_value(value).map_err(|error| E::custom(format!("`{key}`: {error}")))
}

impl SpecialTokenMap {
    /// Returns the entries of `tokenizer_config.json`, where `additional_special_tokens` is an older name of
    /// `extra_special_tokens`.
    pub(super) fn of_config(mut self) -> Self {
        if self
            .extra
            .as_ref()
            .is_none_or(|extra| extra.all().next().is_none())
        {
            self.extra = self.additional.take().or(self.extra);
        }
        self
    }

    /// True if there is a list of `extra_special_tokens`, even an empty one.
    pub(super) fn has_extra_list(&self) -> bool {
        matches!(self.extra, Some(TokenList::List(_)))
    }

    /// Fills what is open from `other`; of two entries for the same token, the one with more properties counts.
    pub(super) fn or(self, other: Self) -> Self {
        let either = |one: &Option<Token>, other: &Option<Token>| match (one, other) {
            (Some(one @ Token::Text(_)), Some(other)) if one.content() == other.content() => {
                Some(other.clone())
            }
            (one, other) => one.as_ref().or(other.as_ref()).cloned(),
        };
        Self {
            by_role: ByRole::from_fn(|role| either(&self.by_role[role], &other.by_role[role])),
            additional: self.additional.or(other.additional),
            extra: match (self.extra, other.extra) {
                (Some(TokenList::List(mut own)), Some(TokenList::List(more))) => {
                    for token in more {
                        if !own.iter().any(|known| known.content() == token.content()) {
                            own.push(token);
                        }
                    }
                    Some(TokenList::List(own))
                }
                (own, other) => own.or(other),
            },
        }
    }

    /// Returns all tokens: those with a role, in the order of [`Role::ALL`], then those without.
    pub(super) fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.by_role.0.iter().flatten().chain(self.without_role())
    }

    /// Returns the tokens without a role.
    pub(super) fn without_role(&self) -> impl Iterator<Item = &Token> {
        let additional = self.additional.as_ref().filter(|_| !self.has_extra_list());
        let lists = [additional, self.extra.as_ref()];
        lists.into_iter().flatten().flat_map(TokenList::all)
    }

    /// Returns the tokens that make an entry of `added_tokens.json` special: those of the older list of
    /// `special_tokens_map.json` do not, in transformers 5.
    pub(super) fn marked(&self) -> impl Iterator<Item = &Token> {
        let extra = self.extra.iter().flat_map(TokenList::all);
        self.by_role.0.iter().flatten().chain(extra)
    }

    /// Returns the token of each role, with the default of a family for the roles that are open.
    pub(super) fn with_defaults(&self, family: Family) -> ByRole<Option<Token>> {
        let defaults = family.default_tokens();
        ByRole::from_fn(|role| {
            let default = || defaults[role].map(|text| Token::Text(text.to_string()));
            self.by_role[role].clone().or_else(default)
        })
    }
}

/// A list of tokens, with or without names.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum TokenList {
    List(Vec<Token>),
    Named(BTreeMap<String, Token>),
}

impl TokenList {
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

impl ByRole<Option<Token>> {
    /// Returns the texts of the tokens.
    pub(super) fn texts(&self) -> RoleTexts {
        ByRole::from_fn(|role| Some(self[role].as_ref()?.content().to_string()))
    }
}
