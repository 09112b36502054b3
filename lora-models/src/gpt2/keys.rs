//! Names of tensors in Hugging Face files, and their layouts.
//!
//! The fields of the modules are named as in Python, so few names differ:
//!
//! | here | in the file |
//! | --- | --- |
//! | `….ln_1.gamma`, `….ln_1.beta` (also `ln_2`, `ln_f`) | `….ln_1.weight`, `….ln_1.bias` |
//! | `lm_head.weight` `[d_model, vocab]` | `lm_head.weight` `[vocab, d_model]` |
//! | everything else, including `Conv1D` weights `[in, out]` | the same name and layout |
//!
//! The bare `GPT2Model` is saved without the prefix `transformer.`; old files hold the causal mask
//! as buffers `….attn.bias` and `….attn.masked_bias`.

use crate::lm::Ends;

/// Prefix that the names of the decoder have in the file of a model with a head.
pub(super) const PREFIX: &str = "transformer.";
/// Position embedding, which every file has.
pub(super) const POSITIONS: &str = "transformer.wpe.weight";
/// Token embedding, and the projection to the vocabulary: the only tensor that is transposed in files.
pub(super) const ENDS: Ends = Ends {
    embedding: "transformer.wte",
    head: "lm_head",
};

/// True for a buffer of the causal mask, which is not a weight.
pub(crate) fn is_mask_buffer(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_buffers_are_told_from_biases() {
        assert!(is_mask_buffer("transformer.h.0.attn.bias"));
        assert!(is_mask_buffer("h.0.attn.masked_bias"));
        assert!(!is_mask_buffer("h.0.attn.c_attn.bias"));
    }
}
