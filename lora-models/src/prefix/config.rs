//! Options for creating a prefix.

use super::kind::PrefixKind;
use super::module::Prefix;
use super::shape::PrefixShape;
use crate::error::ModelError;
use burn::tensor::Device;
use lora_core::normal_values;

/// Options for creating a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixConfig {
    /// Number of virtual tokens.
    pub tokens: usize,
    /// Trained part of them. Default: keys and values.
    pub kind: PrefixKind,
    /// Tokens whose embeddings the virtual tokens start from, in turn (PEFT's initialization by text); none for random values.
    /// For [`PrefixKind::Embeddings`].
    pub start: Vec<u32>,
    /// Seed of the initial values. Default: 42.
    pub seed: u64,
}

impl PrefixConfig {
    /// Creates options for a prefix of `tokens` virtual tokens.
    pub fn new(tokens: usize) -> Self {
        Self {
            tokens,
            kind: PrefixKind::default(),
            start: Vec::new(),
            seed: 42,
        }
    }

    /// Sets what is trained of the virtual tokens.
    pub fn with_kind(mut self, kind: PrefixKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets the tokens whose embeddings the virtual tokens start from.
    pub fn with_start(mut self, tokens: Vec<u32>) -> Self {
        self.start = tokens;
        self
    }

    /// Sets the seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Creates the prefix with normal values of standard deviation 1, as in PEFT.
    ///
    /// The values are drawn on the host and depend only on the seed, so they are equal on every device.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`](lora_core::LoraError::InvalidOption) for no virtual token, or if no position is left for a text.
    pub fn init(&self, shape: &PrefixShape, device: &Device) -> Result<Prefix, ModelError> {
        shape.check(self.tokens)?;
        let count = self.tokens * self.kind.width(shape);
        let values = normal_values(self.seed, self.kind.path(), count, 1.0);
        self.init_with(values, shape, device)
    }

    /// Creates the prefix with these values, `[tokens, width]`.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub(crate) fn init_with(
        &self,
        values: Vec<f32>,
        shape: &PrefixShape,
        device: &Device,
    ) -> Result<Prefix, ModelError> {
        shape.check(self.tokens)?;
        Ok(Prefix::new(values, self.tokens, self.kind, *shape, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: PrefixShape = PrefixShape {
        layers: 3,
        heads: 2,
        query_heads: 2,
        d_keys: 10,
        d_model: 10,
        positions: 8,
    };

    fn values(config: PrefixConfig) -> Vec<f64> {
        let prefix = config.init(&SHAPE, &Device::flex()).unwrap();
        let data = prefix.embeddings.val().into_data();
        data.iter::<f64>().collect()
    }

    #[test]
    fn it_starts_normal_and_by_its_seed() {
        let start = values(PrefixConfig::new(7));
        assert_eq!(start.len(), 7 * 60);
        let squares = start.iter().map(|v| v * v).sum::<f64>() / start.len() as f64;
        // The mean of 420 squares of normals has deviation √(2 / 420) = 0.07.
        assert!((squares - 1.0).abs() < 0.25, "{squares}");
        assert_eq!(start, values(PrefixConfig::new(7)));
        assert_ne!(start, values(PrefixConfig::new(7).with_seed(1)));
    }

    #[test]
    fn a_text_must_have_room() {
        for tokens in [0, 8] {
            let config = PrefixConfig::new(tokens);
            let error = config
                .init(&SHAPE, &Device::flex())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("1 to 7") && error.contains("8 positions"),
                "{error}"
            );
        }
    }
}
