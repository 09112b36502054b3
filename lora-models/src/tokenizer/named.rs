//! The special tokens that have a part to play, by that part.

use super::family::Family;
use super::token_entries::Token;
use tokenizers::Tokenizer;

/// The special tokens by their part.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    /// Begins a text.
    pub(super) bos: Option<String>,
    /// Ends a text.
    pub(super) eos: Option<String>,
    /// Stands for what is unknown.
    pub(super) unk: Option<String>,
    /// Ends a text, and stands between two.
    pub(super) sep: Option<String>,
    /// Fills up short texts.
    pub(super) pad: Option<String>,
    /// Begins a text, and stands for all of it.
    pub(super) cls: Option<String>,
    /// Stands for what is to be guessed.
    pub(super) mask: Option<String>,
}

impl Named {
    /// These, with the usual names for the parts that are open, where a tokenizer that no file names has the special
    /// tokens of BERT or those of RoBERTa. What begins and ends a text is not taken from them: that is for models that
    /// write.
    pub(super) fn or_usual(self, tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let special = |name: &str| added.values().any(|t| t.special && t.content == name);
        let usual = [Family::Bert, Family::Roberta].map(Family::defaults);
        let found = usual.into_iter().find(|family| {
            let parts = [family.cls, family.sep, family.pad, family.mask];
            parts.into_iter().flatten().all(special)
        });
        let Some(usual) = found else {
            return self;
        };
        let text = |name: Option<&str>| name.map(str::to_string);
        Self {
            unk: self.unk.or_else(|| text(Some(usual.unk))),
            sep: self.sep.or_else(|| text(usual.sep)),
            pad: self.pad.or_else(|| text(usual.pad)),
            cls: self.cls.or_else(|| text(usual.cls)),
            mask: self.mask.or_else(|| text(usual.mask)),
            ..self
        }
    }

    pub(super) fn of(parts: &[Option<Token>; 7]) -> Self {
        let content = |part: &Option<Token>| part.as_ref().map(|token| token.content().to_string());
        let [bos, eos, unk, sep, pad, cls, mask] = parts;
        Self {
            bos: content(bos),
            eos: content(eos),
            unk: content(unk),
            sep: content(sep),
            pad: content(pad),
            cls: content(cls),
            mask: content(mask),
        }
    }
}
