//! Random initialization.

use super::{Gpt2Config, Gpt2LmHead};
use crate::ModelError;
use crate::pretrained::{LoadOptions, Pretrained};
use crate::weights::Random;
use burn::tensor::Device;

impl Gpt2LmHead {
    /// Creates a model with random weights, initialized as in transformers: normal with standard deviation
    /// `initializer_range`, divided by √(2 · `n_layer`) for the projections onto the residual stream
    /// (Radford et al. 2019, section 2.3), and zero biases.
    ///
    /// The values are drawn on the host and depend only on `seed` and the parameters' paths, so they are equal on every
    /// device.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a configuration out of range.
    pub fn init(config: &Gpt2Config, seed: u64, device: &Device) -> Result<Self, ModelError> {
        Self::init_random(config, &LoadOptions::default(), seed, device)
    }
}

/// Returns the source of random weights for a configuration.
pub(super) fn random(config: &Gpt2Config, seed: u64) -> Random<impl Fn(&str) -> f64 + use<>> {
    let whole = config.initializer_range;
    let residual = whole / (2.0 * config.n_layer as f64).sqrt();
    Random {
        seed,
        norm: 1.0,
        deviation: move |path: &str| {
            if path.ends_with(".c_proj.weight") {
                residual
            } else {
                whole
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Tensor;

    fn tiny() -> Gpt2Config {
        Gpt2Config {
            vocab_size: 200,
            n_positions: 8,
            n_embd: 64,
            n_layer: 2,
            n_head: 2,
            ..Gpt2Config::default()
        }
    }

    fn deviation<const D: usize>(tensor: &Tensor<D>) -> f64 {
        let values: Vec<f64> = tensor.clone().into_data().iter::<f64>().collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()
    }

    #[test]
    fn deviations_are_transformers() {
        let model = Gpt2LmHead::init(&tiny(), 1, &Device::flex()).unwrap();
        let block = &model.transformer.h[1];
        for (found, expected) in [
            (deviation(&model.transformer.wte.weight.val()), 0.02),
            (deviation(&block.attn.c_attn.weight.val()), 0.02),
            (deviation(&block.attn.c_proj.weight.val()), 0.01),
            (deviation(&block.mlp.c_proj.weight.val()), 0.01),
        ] {
            // The estimate's own deviation is at most 1/√(2 · 4096) = 1.1 %.
            assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
        }
        let bias = block.attn.c_attn.bias.as_ref().unwrap().val();
        assert_eq!(deviation(&bias), 0.0);
        assert_eq!(block.ln_1.gamma.val().mean().into_scalar::<f32>(), 1.0);
    }

    #[test]
    fn the_seed_decides() {
        let start = |seed| {
            let model = Gpt2LmHead::init(&tiny(), seed, &Device::flex()).unwrap();
            model.transformer.wpe.weight.val().into_data()
        };
        assert_eq!(start(3), start(3));
        assert_ne!(start(3), start(4));
    }
}
