//! The families of tokenizers that `transformers` builds from their vocabulary alone, and which of them a directory has.

use super::vocabulary::{Tokens, Vocabulary};
use crate::error::ModelError;
use std::path::Path;

/// The one special token of GPT-2, which begins, ends and replaces.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// A scheme of tokens with its special tokens, named after the model it came with.
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

/// What the files say that a directory's tokenizer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Family(Family),
    /// A class that is none of these: `tokenizer.json` says all about it.
    Other(String),
    Nothing,
}

/// The special tokens of a family, for those that no file names.
pub(super) struct Defaults {
    pub(super) bos: Option<&'static str>,
    pub(super) eos: Option<&'static str>,
    pub(super) unk: &'static str,
    pub(super) sep: Option<&'static str>,
    pub(super) pad: Option<&'static str>,
    pub(super) cls: Option<&'static str>,
    pub(super) mask: Option<&'static str>,
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

    /// What the files call it: `tokenizer_class` of `tokenizer_config.json` or of `config.json` before `model_type` of
    /// `config.json`, as in `transformers`. A model type not known here says nothing.
    pub(super) fn named(class: Option<&str>, model_type: Option<&str>) -> Identity {
        if let Some(class) = class {
            let found = Self::ALL
                .into_iter()
                .find(|family| family.classes().contains(&plain(class)));
            return found.map_or_else(|| Identity::Other(class.to_string()), Identity::Family);
        }
        let of_type = |family: &Self| model_type.is_some_and(|name| family.types().contains(&name));
        let found = Self::ALL.into_iter().find(of_type);
        found.map_or(Identity::Nothing, Identity::Family)
    }

    /// The names of its classes in `transformers`, without `Fast`.
    fn classes(self) -> &'static [&'static str] {
        match self {
            Self::Bert => &["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"],
            Self::Roberta => &["RobertaTokenizer"],
            Self::XlmRoberta => &["XLMRobertaTokenizer"],
            Self::Deberta => &["DebertaTokenizer"],
            Self::DebertaV2 => &["DebertaV2Tokenizer"],
            Self::Gpt2 => &["GPT2Tokenizer"],
        }
    }

    /// The values of `model_type` that it goes with.
    fn types(self) -> &'static [&'static str] {
        match self {
            Self::Bert => &["bert", "distilbert", "electra"],
            Self::Roberta => &["roberta", "roberta-prelayernorm"],
            Self::XlmRoberta => &["xlm-roberta"],
            Self::Deberta => &["deberta"],
            Self::DebertaV2 => &["deberta-v2"],
            Self::Gpt2 => &["gpt2"],
        }
    }

    /// All names of classes, for messages.
    pub(super) fn class_names() -> String {
        let names = Self::ALL.map(|family| family.classes()[0]);
        names.join(", ")
    }

    /// The files besides `tokenizer.json` that define it: all of them together.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Bert => &["vocab.txt"],
            Self::Roberta | Self::Deberta | Self::Gpt2 => &["vocab.json", "merges.txt"],
            Self::XlmRoberta => &["sentencepiece.bpe.model"],
            Self::DebertaV2 => &["spm.model"],
        }
    }

    /// Whether it is built on a vocabulary of this kind.
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

    /// The family of a byte-level BPE that no file names, from the special tokens that it has.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] where it has those of two families.
    pub(super) fn of_bpe(path: &Path, tokens: &Tokens) -> Result<Self, ModelError> {
        let has = |names: [&str; 4]| names.iter().all(|name| tokens.contains_key(*name));
        let roberta = has(["<s>", "</s>", "<pad>", "<unk>"]);
        let deberta = has(["[CLS]", "[SEP]", "[PAD]", "[UNK]"]);
        match (roberta, deberta) {
            (true, false) => Ok(Self::Roberta),
            (false, true) => Ok(Self::Deberta),
            (false, false) => Ok(Self::Gpt2),
            (true, true) => Err(ModelError::Tokenizer {
                path: path.to_path_buf(),
                message: format!(
                    "it has the special tokens of RoBERTa and those of DeBERTa; {}",
                    say_which()
                ),
            }),
        }
    }

    /// Its special tokens where no file names others.
    pub(super) fn defaults(self) -> Defaults {
        match self {
            Self::Bert => Defaults {
                bos: None,
                eos: None,
                ..Self::DebertaV2.defaults()
            },
            Self::Roberta | Self::XlmRoberta => Defaults {
                bos: Some("<s>"),
                eos: Some("</s>"),
                unk: "<unk>",
                sep: Some("</s>"),
                pad: Some("<pad>"),
                cls: Some("<s>"),
                mask: Some("<mask>"),
            },
            Self::Deberta | Self::DebertaV2 => Defaults {
                bos: Some("[CLS]"),
                eos: Some("[SEP]"),
                unk: "[UNK]",
                sep: Some("[SEP]"),
                pad: Some("[PAD]"),
                cls: Some("[CLS]"),
                mask: Some("[MASK]"),
            },
            Self::Gpt2 => Defaults {
                bos: Some(END_OF_TEXT),
                eos: Some(END_OF_TEXT),
                unk: END_OF_TEXT,
                sep: None,
                pad: None,
                cls: None,
                mask: None,
            },
        }
    }
}

/// What to do about a directory that could be several things.
pub(super) fn say_which() -> String {
    format!(
        "say which it is with `tokenizer_class` in tokenizer_config.json, one of {}, or `model_type` in config.json",
        Family::class_names()
    )
}

/// The name of a class without `Fast`, which says how it is implemented and not what it does.
fn plain(class: &str) -> &str {
    class.strip_suffix("Fast").unwrap_or(class)
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
        assert_eq!(named(None, Some("something")), Identity::Nothing);
        assert_eq!(named(None, None), Identity::Nothing);
    }

    #[test]
    fn byte_level_bpe_is_told_by_its_special_tokens() {
        let family = |names: &str| {
            let tokens = names.split(' ').map(str::to_string).zip(0..).collect();
            Family::of_bpe(Path::new("vocab.json"), &tokens)
        };
        assert_eq!(family("<|endoftext|> a").unwrap(), Family::Gpt2);
        assert_eq!(family("<s> </s> a").unwrap(), Family::Gpt2);
        assert_eq!(family("<s> <pad> </s> <unk>").unwrap(), Family::Roberta);
        assert_eq!(family("[PAD] [CLS] [SEP] [UNK]").unwrap(), Family::Deberta);
        let both = family("[PAD] [CLS] [SEP] [UNK] <s> <pad> </s> <unk>").unwrap_err();
        assert!(both.to_string().contains("`model_type`"), "{both}");
    }
}
