//! Sizes of a model that virtual tokens depend on.

use lora_core::LoraError;

/// Sizes of a model that its prefix depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixShape {
    /// Number of layers.
    pub layers: usize,
    /// Number of heads of keys in a layer.
    pub heads: usize,
    /// Number of heads of queries in a layer.
    pub query_heads: usize,
    /// Width of the keys of all heads together; that of the values is the same.
    pub d_keys: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Number of positions, which virtual tokens and text share.
    pub positions: usize,
}

impl PrefixShape {
    /// Checks that the model has room for the virtual tokens and a text.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`].
    pub(super) fn check(&self, tokens: usize) -> Result<(), LoraError> {
        if (1..self.positions).contains(&tokens) {
            return Ok(());
        }
        Err(LoraError::InvalidOption {
            option: "prefix",
            found: tokens.to_string(),
            expected: format!(
                "1 to {} virtual tokens: the model has {} positions, and a text needs some",
                self.positions - 1,
                self.positions
            ),
        })
    }
}
