//! How many virtual tokens a prefix has, and of which model.

use super::Prefix;
use crate::ModelError;
use burn::tensor::Device;
use lora_core::{LoraError, normal_values};

/// What of a model its prefix depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixShape {
    /// Number of layers that attend to it.
    pub layers: usize,
    /// Number of attention heads in each.
    pub heads: usize,
    /// Width of all heads together.
    pub d_model: usize,
    /// Positions of the model, which the virtual tokens and those of a text share.
    pub positions: usize,
}

impl PrefixShape {
    /// Number of values of one virtual token: a key and a value in each layer.
    pub fn width(&self) -> usize {
        2 * self.layers * self.d_model
    }

    /// Refuses a number of virtual tokens that the model has no room for beside a text.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`].
    pub(super) fn check(&self, tokens: usize) -> Result<(), LoraError> {
        match (1..self.positions).contains(&tokens) {
            true => Ok(()),
            false => Err(LoraError::InvalidOption {
                option: "prefix",
                found: tokens.to_string(),
                expected: format!(
                    "1 to {} virtual tokens: the model has {} positions, and a text needs some",
                    self.positions - 1,
                    self.positions
                ),
            }),
        }
    }
}

/// A prefix to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixConfig {
    /// Number of virtual tokens.
    pub tokens: usize,
    /// Seed of the values that it starts at. Default 42.
    pub seed: u64,
}

impl PrefixConfig {
    /// A prefix of so many virtual tokens.
    pub fn new(tokens: usize) -> Self {
        Self { tokens, seed: 42 }
    }

    /// Sets the seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Makes it for a model: normal with standard deviation 1, as PEFT starts one.
    ///
    /// The values are drawn on the host and depend on the seed alone, so they are the same on every
    /// device.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] where there is no token, or none is left for a text.
    pub fn init(&self, shape: &PrefixShape, device: &Device) -> Result<Prefix, ModelError> {
        shape.check(self.tokens)?;
        let count = self.tokens * shape.width();
        let values = normal_values(self.seed, super::module::PATH, count, 1.0);
        Ok(Prefix::new(values, self.tokens, *shape, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: PrefixShape = PrefixShape {
        layers: 3,
        heads: 2,
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
