//! Families of tokenizers that `transformers` builds from their vocabulary alone, and how a directory is matched to
//! one.

use super::roles::{ByRole, Role, RoleTexts};
use super::vocabulary::{Tokens, Vocabulary};
use crate::error::ModelError;
use std::path::Path;
use tokenizers::Tokenizer;

/// Only special token of GPT-2: begins and ends texts, and stands for unknown tokens.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer scheme with its special tokens, named after the model that introduced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// WordPiece.
    Bert,
    /// Byte-level BPE, `<s> … </s></s> … </s>`.
    Roberta,
    /// SentencePiece, with the ids of fairseq.
    XlmRoberta,
    /// Byte-level BPE, `[CLS] … [SEP]`; DeBERTa's first version.
    Deberta,
    /// SentencePiece; DeBERTa's second and third version.
    DebertaV2,
    /// Byte-level BPE without special tokens.
    Gpt2,
}

/// Identity of a directory's tokenizer according to its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Family(Family),
    /// A class outside the families; `tokenizer.json` describes it completely.
    Other(String),
    Unknown,
}

/// Constants of a family.
struct Definition {
    /// Names of its classes in `transformers`, without `Fast`; the first one is shown in messages.
    classes: &'static [&'static str],
    /// Values of `model_type` that use the family.
    model_types: &'static [&'static str],
    /// Files besides `tokenizer.json` that together define a tokenizer.
    files: &'static [&'static str],
    /// Default tokens in the order of [`Role::ALL`], empty for none.
    tokens: [&'static str; 7],
}

impl Family {
    const ALL: [Self; 6] = [
        Self::Bert,
        Self::Roberta,
        Self::XlmRoberta,
        Self::Deberta,
        Self::DebertaV2,
        Self::Gpt2,
    ];

    /// Finds the family that the files name: `tokenizer_class` of `tokenizer_config.json` or `config.json` takes
    /// precedence over `model_type` of `config.json`, as in `transformers`. An unknown model type counts as none.
    pub(super) fn named(class: Option<&str>, model_type: Option<&str>) -> Identity {
        let find = |matches: &dyn Fn(Definition) -> bool| {
            let mut all = Self::ALL.into_iter();
            let family = all.find(|family| matches(family.definition()));
            family.map(Identity::Family)
        };
        match (class, model_type) {
            (Some(class), _) => {
                // `Fast` tells the implementation and not the behavior.
                let plain = class.strip_suffix("Fast").unwrap_or(class);
                find(&|family| family.classes.contains(&plain))
                    .unwrap_or_else(|| Identity::Other(class.to_string()))
            }
            (None, Some(name)) => {
                find(&|family| family.model_types.contains(&name)).unwrap_or(Identity::Unknown)
            }
            (None, None) => Identity::Unknown,
        }
    }

    /// Lists all class names, for messages.
    pub(super) fn class_names() -> String {
        let names = Self::ALL.map(|family| family.definition().classes[0]);
        names.join(", ")
    }

    /// True if the family is built on a vocabulary of this kind.
    pub(super) fn takes(self, vocabulary: &Vocabulary) -> bool {
        matches!(
            (self, vocabulary),
            (Self::Bert, Vocabulary::WordPiece(_))
                | (
                    Self::Roberta | Self::Deberta | Self::Gpt2,
                    Vocabulary::Bpe(..)
                )
                | (Self::XlmRoberta | Self::DebertaV2, Vocabulary::Unigram(_))
        )
    }

    /// Finds the family of a byte-level BPE that no file names, by its special tokens.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if it has the special tokens of two families.
    pub(super) fn detect_bpe(path: &Path, tokens: &Tokens) -> Result<Self, ModelError> {
        let has = |names: [&str; 4]| names.iter().all(|name| tokens.contains_key(*name));
        let roberta = has(["<s>", "</s>", "<pad>", "<unk>"]);
        let deberta = has(["[CLS]", "[SEP]", "[PAD]", "[UNK]"]);
        match (roberta, deberta) {
            (true, false) => Ok(Self::Roberta),
            (false, true) => Ok(Self::Deberta),
            (false, false) => Ok(Self::Gpt2),
            (true, true) => {
                let both = "it has the special tokens of both RoBERTa and DeBERTa";
                let message = format!("{both}; {}", how_to_choose());
                Err(ModelError::tokenizer(path, message))
            }
        }
    }

    /// Returns the files besides `tokenizer.json` that together define a tokenizer of the family.
    pub(super) fn files(self) -> &'static [&'static str] {
        self.definition().files
    }

    /// Names those files, for messages.
    pub(super) fn file_names(&self) -> String {
        self.files().join(" with ")
    }

    /// Returns the special tokens, by role, for the roles that no file fills.
    pub(super) fn default_tokens(self) -> ByRole<Option<&'static str>> {
        let tokens = self.definition().tokens;
        ByRole(tokens.map(|token| Some(token).filter(|token| !token.is_empty())))
    }

    fn definition(self) -> Definition {
        const BPE: &[&str] = &["vocab.json", "merges.txt"];
        const ANGLES: [&str; 7] = ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"];
        const BRACKETS: [&str; 7] = [
            "[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]",
        ];
        match self {
            Self::Bert => Definition {
                classes: &["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"],
                model_types: &["bert", "distilbert", "electra"],
                files: &["vocab.txt"],
                tokens: ["", "", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"],
            },
            Self::Roberta => Definition {
                classes: &["RobertaTokenizer"],
                model_types: &["roberta", "roberta-prelayernorm"],
                files: BPE,
                tokens: ANGLES,
            },
            Self::XlmRoberta => Definition {
                classes: &["XLMRobertaTokenizer"],
                model_types: &["xlm-roberta"],
                files: &["sentencepiece.bpe.model"],
                tokens: ANGLES,
            },
            Self::Deberta => Definition {
                classes: &["DebertaTokenizer"],
                model_types: &["deberta"],
                files: BPE,
                tokens: BRACKETS,
            },
            Self::DebertaV2 => Definition {
                classes: &["DebertaV2Tokenizer"],
                model_types: &["deberta-v2"],
                files: &["spm.model"],
                tokens: BRACKETS,
            },
            Self::Gpt2 => Definition {
                classes: &["GPT2Tokenizer"],
                model_types: &["gpt2"],
                files: BPE,
                tokens: [END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, "", "", "", ""],
            },
        }
    }
}

impl RoleTexts {
    /// Fills open roles with the usual tokens, where a tokenizer of no known family has the special tokens of BERT or
    /// of RoBERTa.
    ///
    /// The tokens that begin and end a text stay open: they are for models that generate text.
    pub(super) fn or_usual(mut self, tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let special = |name: &str| added.values().any(|t| t.special && t.content == name);
        let usual = [Family::Bert, Family::Roberta].map(Family::default_tokens);
        let required = [Role::Cls, Role::Sep, Role::Pad, Role::Mask];
        let has_all = |tokens: &ByRole<Option<&str>>| {
            required
                .iter()
                .all(|&role| tokens[role].is_none_or(special))
        };
        let found = usual.into_iter().find(has_all);
        if let Some(usual) = found {
            for role in [Role::Unk, Role::Sep, Role::Pad, Role::Cls, Role::Mask] {
                self[role] = self[role].take().or(usual[role].map(str::to_string));
            }
        }
        self
    }
}

/// Returns advice for a directory that could be one of several tokenizers.
pub(super) fn how_to_choose() -> String {
    format!(
        "name the right one with `tokenizer_class` in tokenizer_config.json, one of {}, or `model_type` in config.json",
        Family::class_names()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_comes_before_the_model_type() {
        let named = Family::named;
        assert_eq!(named(None, Some("bert")), Identity::Family(Family::Bert));
        assert_eq!(
            named(Some("RobertaTokenizerFast"), Some("bert")),
            Identity::Family(Family::Roberta)
        );
        assert_eq!(
            named(Some("PreTrainedTokenizerFast"), Some("bert")),
            Identity::Other("PreTrainedTokenizerFast".to_string())
        );
        assert_eq!(named(None, Some("something")), Identity::Unknown);
        assert_eq!(named(None, None), Identity::Unknown);
    }

    #[test]
    fn byte_level_bpe_is_told_by_its_special_tokens() {
        let family = |names: &str| {
            let tokens = names.split(' ').map(str::to_string).zip(0..).collect();
            Family::detect_bpe(Path::new("vocab.json"), &tokens)
        };
        assert_eq!(family("<|endoftext|> a").unwrap(), Family::Gpt2);
        assert_eq!(family("<s> </s> a").unwrap(), Family::Gpt2);
        assert_eq!(family("<s> <pad> </s> <unk>").unwrap(), Family::Roberta);
        assert_eq!(family("[PAD] [CLS] [SEP] [UNK]").unwrap(), Family::Deberta);
        let both = family("[PAD] [CLS] [SEP] [UNK] <s> <pad> </s> <unk>").unwrap_err();
        assert!(both.to_string().contains("`model_type`"), "{both}");
    }
}
