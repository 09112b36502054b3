//! Models that text can be generated with.

use super::KvCache;
use burn::tensor::{Bool, Int, Tensor};

/// A language model that predicts the next token, step by step.
pub trait CausalModel {
    /// Returns the number of tokens in the vocabulary; ids are below it.
    fn vocab_size(&self) -> usize;

    /// Returns the maximum length of prompt and continuation together: the model's positions without those of its
    /// virtual tokens.
    fn max_positions(&self) -> usize;

    /// Returns the number of virtual tokens of the [prefix](crate::prefix).
    fn virtual_tokens(&self) -> usize {
        0
    }

    /// Returns the lengths above which keys and values of all tokens differ from those in a shorter text, as with LongRoPE: a text
    /// that grows beyond one is read again.
    fn rereads_above(&self) -> Vec<usize> {
        Vec::new()
    }

    /// Returns the number of prompts that the model is set up for, in order; `None` for any number.
    fn prompts(&self) -> Option<usize> {
        None
    }

    /// Returns the number of layers with a cache of keys and values.
    fn cache_layers(&self) -> usize;

    /// Reads `seq` more tokens of each row, and returns the logits after the last of them.
    ///
    /// Keys and values of the tokens are appended to the cache.
    ///
    /// # Shapes
    /// - `ids`, `position_ids`: `[rows, seq]`
    /// - `attention_mask`: `[rows, cache.len() + seq]`, false for padding; `None` without padding
    /// - returns `[rows, vocab_size]`
    fn next_logits(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        position_ids: Tensor<2, Int>,
        cache: &mut KvCache,
    ) -> Tensor<2>;
}
