//! Kinds of virtual tokens.

use super::shape::PrefixShape;
use lora_core::file::AdapterKind;

/// Trained part of virtual tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PrefixKind {
    /// Keys and values in each layer: prefix tuning (Li and Liang 2021), PEFT's `PREFIX_TUNING`.
    #[default]
    KeysAndValues,
    /// Embeddings: prompt tuning (Lester et al. 2021), PEFT's `PROMPT_TUNING`, the paper's prefix-embedding.
    Embeddings,
    /// Activations that enter each layer: the paper's prefix-layer (Hu et al. 2021, section 5.1).
    Activations,
}

impl PrefixKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::KeysAndValues, Self::Embeddings, Self::Activations];

    /// Returns the kind of an adapter directory; `None` for one without virtual tokens.
    pub fn of(kind: &AdapterKind) -> Option<Self> {
        match kind {
            AdapterKind::Prefix => Some(Self::KeysAndValues),
            AdapterKind::Prompt => Some(Self::Embeddings),
            AdapterKind::PrefixLayer => Some(Self::Activations),
            _ => None,
        }
    }

    /// Returns the name in `peft_type`.
    pub fn peft_type(self) -> &'static str {
        match self {
            Self::KeysAndValues => "PREFIX_TUNING",
            Self::Embeddings => "PROMPT_TUNING",
            Self::Activations => "PREFIX_LAYER",
        }
    }

    /// Returns the name of the method, which is that of the subdirectory beside another adapter too.
    pub fn name(self) -> &'static str {
        match self {
            Self::KeysAndValues => "prefix",
            Self::Embeddings => "prompt",
            Self::Activations => "prefix-layer",
        }
    }

    /// Returns the path that the parameter's id and the initial values derive from: the same in every process and model.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::KeysAndValues => "prefix.embeddings",
            Self::Embeddings => "prompt.embeddings",
            Self::Activations => "prefix_layer.embeddings",
        }
    }

    /// Returns PEFT's `num_attention_heads`: the heads that keys and values have, else those of the queries.
    pub(super) fn heads(self, shape: &PrefixShape) -> usize {
        match self {
            Self::KeysAndValues => shape.heads,
            Self::Embeddings | Self::Activations => shape.query_heads,
        }
    }

    /// Returns the width that PEFT calls that of a token: of the keys of a layer, or of a hidden state.
    pub(super) fn token_width(self, shape: &PrefixShape) -> usize {
        match self {
            Self::KeysAndValues => shape.d_keys,
            Self::Embeddings | Self::Activations => shape.d_model,
        }
    }

    /// Returns the number of values of one virtual token: a key and a value in each layer, one embedding, or one activation in
    /// each layer.
    pub fn width(self, shape: &PrefixShape) -> usize {
        match self {
            Self::KeysAndValues => 2 * shape.layers * shape.d_keys,
            Self::Embeddings => shape.d_model,
            Self::Activations => shape.layers * shape.d_model,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 5.1 of Hu et al. 2021: `d · (l_p + l_i)` for prefix-embedding and `L · d · (l_p + l_i)` for prefix-layer.
    #[test]
    fn widths_are_those_of_the_papers_formulas() {
        let gpt3 = PrefixShape {
            layers: 96,
            heads: 96,
            query_heads: 96,
            d_keys: 12288,
            d_model: 12288,
            positions: 2048,
        };
        // PreEmbed with 256 and 8 tokens: 3.2 M.
        assert_eq!(264 * PrefixKind::Embeddings.width(&gpt3), 3_244_032);
        assert_eq!(16 * PrefixKind::Activations.width(&gpt3), 96 * 12288 * 16);
        assert_eq!(PrefixKind::KeysAndValues.width(&gpt3), 2 * 96 * 12288);
        // PreLayer on GPT-2 medium has 0.1 % of the weights, 0.35 M: 14 tokens are the nearest.
        let medium = PrefixShape {
            layers: 24,
            heads: 16,
            query_heads: 16,
            d_keys: 1024,
            d_model: 1024,
            positions: 1024,
        };
        assert_eq!(14 * PrefixKind::Activations.width(&medium), 344_064);
    }
}
