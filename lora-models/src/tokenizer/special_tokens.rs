//! Special tokens, gathered from the files beside a tokenizer.

use super::MAX_FILE_BYTES;
use super::family::Family;
use super::roles::{ByRole, Role, RoleTexts};
use super::token_entries::{AddedEntry, SpecialTokenMap, Token};
use super::whole_file::Added as AddedById;
use crate::checkpoint::bounded::read_json;
use crate::error::ModelError;
use lora_core::files::{Directory, DirectoryFile};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use tokenizers::AddedToken;

/// Tokens and settings from the files beside a tokenizer.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    /// Texts of the special tokens, by role.
    pub(super) named: RoleTexts,
    /// Tokens beyond the model's vocabulary: first by id, then the special ones in the order of `transformers`.
    pub(super) tokens: Vec<AddedToken>,
    /// Settings for splitting texts.
    pub(super) settings: Settings,
    /// Ids of `config.json`, for roles without a named token.
    pub(super) config_ids: ByRole<Option<u32>>,
    /// Class of the tokenizer in `transformers`.
    pub(super) class: Option<String>,
    /// Model type of `config.json`.
    pub(super) model_type: Option<String>,
    /// Special tokens as the files have them.
    entries: SpecialTokenMap,
    /// `added_tokens_decoder` of `tokenizer_config.json`, which replaces all other lists of added tokens.
    listed: Option<AddedById>,
    /// `added_tokens.json`.
    legacy: BTreeMap<u32, String>,
}

/// Settings of `tokenizer_config.json` for splitting texts. The family decides on those that are `None`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    /// Puts a space before the first word.
    pub(super) add_prefix_space: Option<bool>,
    pub(super) add_bos_token: Option<bool>,
    pub(super) add_eos_token: Option<bool>,
    pub(super) do_lower_case: Option<bool>,
    pub(super) strip_accents: Option<bool>,
    pub(super) tokenize_chinese_chars: Option<bool>,
    pub(super) split_by_punct: Option<bool>,
    pub(super) unk_id: Option<usize>,
    pub(super) pad_token_type_id: Option<u32>,
    pub(super) truncation_side: Option<Side>,
}

/// Side of a text.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    Left,
    Right,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and `config.json` of a directory,
    /// if they exist. `config` is the object of `config.json`, if it has been read.
    ///
    /// # Errors
    /// [`ModelError::Json`], [`ModelError::TooLarge`], [`ModelError::Malformed`] or [`ModelError::Io`] if one exists
    /// and cannot be read.
    pub(super) fn read(
        dir: &Directory,
        config: Option<&Map<String, Value>>,
    ) -> Result<Self, ModelError> {
        let file = dir.file("config.json");
        let model = match config {
            Some(object) => ModelConfig::deserialize(object)
                .map_err(|error| ModelError::json(file.path(), error))?,
            None => read_if_there(&file)?,
        };
        let config: TokenizerConfig = read_if_there(&dir.file("tokenizer_config.json"))?;
        let map: SpecialTokenMap = read_if_there(&dir.file("special_tokens_map.json"))?;
        let added: BTreeMap<String, u32> = read_if_there(&dir.file("added_tokens.json"))?;

        let named = config.named.of_config().or(map);
        let listed = config.added_tokens_decoder.map(|entries| {
            let to_added =
                |(id, entry): (u32, AddedEntry)| (id, entry.token.to_added(entry.special));
            entries.into_iter().map(to_added).collect::<AddedById>()
        });
        let legacy = added.into_iter().map(|(content, id)| (id, content));
        let legacy: BTreeMap<u32, String> = legacy.collect();
        // In the order of their ids: new ids are assigned in this order.
        let plain = |(&id, content): (&u32, &String)| (id, AddedToken::from(&content[..], false));
        let mut by_id: AddedById = legacy.iter().map(plain).collect();
        by_id.extend(
            listed
                .iter()
                .flatten()
                .map(|(&id, token)| (id, token.clone())),
        );
        let mut tokens: Vec<AddedToken> = by_id.into_values().collect();
        tokens.extend(named.tokens().map(|token| token.to_added(true)));
        let text = |value: &Value| value.as_str().map(str::to_string);
        Ok(Self {
            named: named.by_role.texts(),
            tokens,
            settings: config.settings,
            config_ids: ByRole::from_fn(|role| match role {
                Role::Bos => first_id(&model.bos_token_id),
                Role::Eos => first_id(&model.eos_token_id),
                Role::Pad => first_id(&model.pad_token_id),
                _ => None,
            }),
            class: text(&config.tokenizer_class).or_else(|| text(&model.tokenizer_class)),
            model_type: text(&model.model_type),
            entries: named,
            listed,
            legacy,
        })
    }

    /// Returns the texts of the special tokens by role, with the defaults of a family.
    pub(super) fn texts_for(&self, family: Family) -> RoleTexts {
        self.entries.with_defaults(family).texts()
    }

    /// Returns the special tokens of a family by role, and all tokens to add to its vocabulary, in this order.
    ///
    /// `from_file` are the added tokens of `tokenizer.json`, `pieces` the ones that a SentencePiece model never
    /// splits, if the vocabulary comes from one: they stand in the place of `additional_special_tokens`. The order determines the ids of tokens that the vocabulary lacks, and the rules of a token determine
    /// where it is found, so the files are processed as by `transformers`: a listed token has the rules of its list; a
    /// token that is only named is special and found verbatim.
    pub(super) fn for_family(
        &self,
        family: Family,
        from_file: AddedById,
        pieces: Option<Vec<AddedToken>>,
    ) -> (RoleTexts, Vec<AddedToken>) {
        let named = self.entries.with_defaults(family);
        let listed = match &self.listed {
            Some(listed) => listed.clone(),
            None => {
                let special: HashSet<&str> = self.entries.marked().map(Token::content).collect();
                let legacy = self.legacy.iter().map(|(&id, content)| {
                    let special = special.contains(content.as_str());
                    (id, AddedToken::from(content.clone(), special))
                });
                legacy.chain(from_file).collect()
            }
        };
        let known: HashSet<String> = listed.values().map(|token| token.content.clone()).collect();
        let mut tokens: Vec<AddedToken> = listed.into_values().collect();
        let texts = named.texts();
        for token in &mut tokens {
            token.special |= texts.0.iter().flatten().any(|text| *text == token.content);
        }
        let extra: Vec<AddedToken> = match pieces {
            Some(pieces) if !self.entries.has_extra_list() => pieces,
            _ => {
                let extra = self.entries.without_role();
                extra.map(|token| token.to_added(true)).collect()
            }
        };
        let named = named.0.iter().flatten();
        for token in named.map(|token| token.to_added(true)).chain(extra) {
            if !known.contains(&token.content) && !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        (texts, tokens)
    }
}

fn read_if_there<T: DeserializeOwned + Default>(file: &DirectoryFile) -> Result<T, ModelError> {
    if file.exists() {
        read_json(file, MAX_FILE_BYTES)
    } else {
        Ok(T::default())
    }
}

/// Reads an id, or the first of a list of ids; `None` for anything else: -1 and null are in use for no id.
fn first_id(value: &Value) -> Option<u32> {
    let one = value.as_array().map_or(Some(value), |ids| ids.first());
    u32::try_from(one?.as_u64()?).ok()
}

/// Keys of `tokenizer_config.json` that concern tokens.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    #[serde(flatten)]
    named: SpecialTokenMap,
    #[serde(flatten)]
    settings: Settings,
    added_tokens_decoder: Option<BTreeMap<u32, AddedEntry>>,
    tokenizer_class: Value,
}

/// Keys of `config.json` that concern tokens.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelConfig {
    eos_token_id: Value,
    bos_token_id: Value,
    pad_token_id: Value,
    model_type: Value,
    tokenizer_class: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<SpecialTokens, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        SpecialTokens::read(&dir.path().into(), None)
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
        assert!(
            special.named[Role::Eos].is_none()
                && special.tokens.is_empty()
                && special.class.is_none()
        );
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
        assert_eq!(special.named[Role::Eos].as_deref(), Some("</s>"));
        assert_eq!(special.named[Role::Bos].as_deref(), Some("<s>"));
        assert_eq!(special.named[Role::Pad].as_deref(), Some("<pad>"));
        assert_eq!(contents(&special), ["<s>", "</s>", "<pad>"]);
        assert!(special.tokens[1].lstrip && special.tokens[1].special);
    }

    #[test]
    fn of_two_accounts_of_a_token_the_fuller_counts() {
        let special = read(&[
            ("tokenizer_config.json", r#"{"mask_token": "<mask>"}"#),
            (
                "special_tokens_map.json",
                r#"{"mask_token": {"content": "<mask>", "lstrip": true}}"#,
            ),
        ])
        .unwrap();
        assert!(special.tokens[0].lstrip);
    }

    #[test]
    fn tokens_of_a_family_are_listed_then_named_then_found_in_the_model() {
        let tokens = |files: &[(&str, &str)]| {
            let piece = AddedToken::from("<ent>", false).normalized(false);
            let from_file = BTreeMap::from([(9, AddedToken::from("old", false))]);
            let special = read(files).unwrap();
            let (named, tokens) = special.for_family(Family::Roberta, from_file, Some(vec![piece]));
            assert_eq!(named[Role::Pad].as_deref(), Some("<pad>"));
            let tokens = tokens.into_iter();
            tokens
                .map(|token| (token.content, token.special))
                .collect::<Vec<_>>()
        };
        let is = |found: &[(String, bool)], wanted: &[(&str, bool)]| {
            let found: Vec<(&str, bool)> = found.iter().map(|(t, s)| (t.as_str(), *s)).collect();
            assert_eq!(found, wanted);
        };
        let parts = [
            ("<s>", true),
            ("</s>", true),
            ("<unk>", true),
            ("<pad>", true),
        ];
        let mask = ("<mask>", true);
        is(
            &tokens(&[("added_tokens.json", r#"{"<mask>": 7, "new": 8}"#)]),
            &[
                &[("<mask>", true), ("new", false), ("old", false)],
                &parts[..],
                &[("<ent>", false)],
            ]
            .concat(),
        );
        // A list in the configuration stands for all others.
        is(
            &tokens(&[(
                "tokenizer_config.json",
                r#"{"added_tokens_decoder": {"5": {"content": "<unk>", "special": false}}, "extra_special_tokens": []}"#,
            )]),
            &[&[parts[2]], &parts[..2], &parts[3..], &[mask]].concat(),
        );
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
        assert_eq!(
            (ids[Role::Eos], ids[Role::Bos], ids[Role::Pad]),
            (Some(7), None, Some(3))
        );
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
