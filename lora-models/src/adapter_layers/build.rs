//! Construction of adapter layers from their options.

use super::config::AdapterLayersConfig;
use super::module::{AdapterLayers, Bottleneck, LayerAdapters};
use crate::error::ModelError;
use crate::prefix::PrefixShape;
use crate::weights::param;
use burn::tensor::{Device, TensorData};
use lora_core::{Dropout, LayerNormConfig, LoraLinear, normal_values};

/// Standard deviation of the initial weights, as in the library `adapters` (`init_weights` `bert`).
const DEVIATION: f64 = 0.02;

impl AdapterLayersConfig {
    /// Creates the layers with normal weights of standard deviation 0.02 and biases zero, as in the library `adapters`.
    ///
    /// The values are drawn on the host and depend only on the seed, so they are equal on every device.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`](lora_core::LoraError::InvalidOption) for an option out of its range.
    pub fn init(&self, shape: &PrefixShape, device: &Device) -> Result<AdapterLayers, ModelError> {
        let seed = self.seed;
        self.build(shape, device, |path, shape, kind| {
            let count = shape.iter().product();
            Ok(match kind {
                Tensors::Weight => normal_values(seed, path, count, DEVIATION),
                Tensors::Scale => vec![1.0; count],
                Tensors::Zeros => vec![0.0; count],
            })
        })
    }

    /// Creates the layers with values of a source, which gets the path of each parameter, its shape in the module and its kind.
    ///
    /// # Errors
    /// As [`init`](Self::init), and those of the source.
    pub(super) fn build(
        &self,
        shape: &PrefixShape,
        device: &Device,
        mut values: impl FnMut(&str, &[usize], Tensors) -> Result<Vec<f32>, ModelError>,
    ) -> Result<AdapterLayers, ModelError> {
        self.check(shape)?;
        let (d, size) = (shape.d_model, self.size_in(shape.d_model));
        let mut bottleneck = |path: String| -> Result<Bottleneck, ModelError> {
            let mut vector = |name: &str, length: usize, kind| {
                let path = format!("{path}.{name}");
                let values = values(&path, &[length], kind)?;
                Ok::<_, ModelError>(param(&path, TensorData::new(values, [length]), device))
            };
            let norm = if self.own_norm {
                let gamma = vector("norm.gamma", d, Tensors::Scale)?;
                let beta = vector("norm.beta", d, Tensors::Zeros)?;
                Some(LayerNormConfig::new(d).init_with(gamma, beta))
            } else {
                None
            };
            let biases = [
                vector("down.bias", size, Tensors::Zeros)?,
                vector("up.bias", d, Tensors::Zeros)?,
            ];
            let mut matrix = |name: &str, shape: [usize; 2]| {
                let path = format!("{path}.{name}.weight");
                let values = values(&path, &shape, Tensors::Weight)?;
                Ok::<_, ModelError>(param(&path, TensorData::new(values, shape), device))
            };
            let [down_bias, up_bias] = biases;
            Ok(Bottleneck {
                norm,
                down: LoraLinear {
                    weight: matrix("down", [d, size])?,
                    bias: Some(down_bias),
                },
                up: LoraLinear {
                    weight: matrix("up", [size, d])?,
                    bias: Some(up_bias),
                },
                dropout: Dropout::new(self.dropout),
                activation: self.activation,
                norm_before: self.norm_before,
                norm_after: self.norm_after,
                residual: self.residual,
                scaling: self.scaling,
            })
        };
        let mut layers = Vec::with_capacity(shape.layers);
        for index in 0..shape.layers {
            let [attention, output] = self.places(index);
            let mut at = |there: bool, place: &str| {
                there
                    .then(|| bottleneck(format!("adapters.{index}.{place}")))
                    .transpose()
            };
            layers.push(LayerAdapters {
                attention: at(attention, "attention")?,
                output: at(output, "output")?,
            });
        }
        Ok(AdapterLayers {
            layers,
            config: self.clone(),
            d_model: d,
        })
    }
}

/// Kinds of the parameters of an adapter layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tensors {
    /// Matrix, random at first.
    Weight,
    /// Scale of a norm, one at first.
    Scale,
    /// Bias, zero at first.
    Zeros,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_layers_have_the_counted_parameters() {
        let shape = PrefixShape {
            layers: 3,
            heads: 2,
            query_heads: 2,
            d_keys: 10,
            d_model: 10,
            positions: 9,
        };
        for config in [
            AdapterLayersConfig::houlsby().with_size(3),
            AdapterLayersConfig::lin().without_first(1),
            AdapterLayersConfig::pfeiffer(),
        ] {
            let layers = config.init(&shape, &Device::flex()).unwrap();
            assert_eq!(layers.parameters(), config.parameters(3, 10));
        }
        let all = AdapterLayersConfig::pfeiffer().without_first(3);
        let message = all.init(&shape, &Device::flex()).unwrap_err().to_string();
        assert!(message.contains("adapter_drop"), "{message}");
    }
}
