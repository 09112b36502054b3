//! What a model must be able to do to generate text.

use super::KvCache;
use burn::tensor::{Bool, Int, Tensor};

/// A language model that predicts the next token, one step at a time.
pub trait CausalModel {
    /// Number of tokens that it knows; ids are below it.
    fn vocab_size(&self) -> usize;

    /// Longest sequence, prompt and continuation together: the model's positions without those of its
    /// virtual tokens.
    fn max_positions(&self) -> usize;

    /// Number of virtual tokens before every prompt, which a [prefix](crate::prefix) has.
    fn virtual_tokens(&self) -> usize {
        0
    }

    /// Number of layers that keep keys and values.
    fn cache_layers(&self) -> usize;

    /// Reads `seq` more tokens of each row and predicts what follows the last of them.
    ///
    /// The tokens' keys and values are added to the cache.
    ///
    /// # Shapes
    /// - `ids`, `position_ids`: `[rows, seq]`
    /// - `attention_mask`: `[rows, cache.len() + seq]`, false where a row is padding; `None` where
    ///   no row is
    /// - returns `[rows, vocab_size]`, not normalised
    fn next_logits(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        position_ids: Tensor<2, Int>,
        cache: &mut KvCache,
    ) -> Tensor<2>;
}
