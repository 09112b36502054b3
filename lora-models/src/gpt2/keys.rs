//! Names of tensors in Hugging Face files, and how their layouts differ from ours.
//!
//! The fields of the modules are named as in Python, so little is left to map:
//!
//! | here | in the file |
//! | --- | --- |
//! | `….ln_1.gamma`, `….ln_1.beta` (also `ln_2`, `ln_f`) | `….ln_1.weight`, `….ln_1.bias` |
//! | `lm_head.weight` `[d_model, vocab]` | `lm_head.weight` `[vocab, d_model]` |
//! | everything else, `Conv1D` weights `[in, out]` among it | the same name and layout |
//!
//! The bare `GPT2Model` is saved without the prefix `transformer.`; old files hold the causal mask
//! as buffers `….attn.bias` and `….attn.masked_bias`.

/// What a file of a model with a head puts before the names of the model without.
pub(super) const PREFIX: &str = "transformer.";
/// The projection to the vocabulary: the one tensor that lies the other way round in a file.
pub(super) const HEAD: &str = "lm_head.weight";
/// The token embedding.
pub(super) const EMBEDDING: &str = "transformer.wte.weight";

/// Whether a tensor of this name is a buffer of the causal mask, which is no weight.
pub(super) fn is_mask_buffer(name: &str) -> bool {
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
