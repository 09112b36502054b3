//! Modules of adapter layers.

use super::config::{AdapterLayersConfig, Residual};
use crate::activation::Activation;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::{Dropout, LayerNorm, LoraLinear, trainable_summary};

/// Adapter layers of a model.
#[derive(Module, Debug)]
pub struct AdapterLayers {
    /// Adapter layers of each layer of the model.
    pub layers: Vec<LayerAdapters>,
    #[module(skip)]
    pub(super) config: AdapterLayersConfig,
    pub(super) d_model: usize,
}

/// Adapter layers in one layer of a model.
#[derive(Module, Debug)]
pub struct LayerAdapters {
    /// Adapter layer after the attention.
    pub attention: Option<Bottleneck>,
    /// Adapter layer after the MLP.
    pub output: Option<Bottleneck>,
}

/// Adapter layer: `s · (act(norm(x) W_down + b_down) W_up + b_up)`, added to its residual.
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// Layer norm before the down projection.
    pub norm: Option<LayerNorm>,
    /// Down projection, `[d_model, size]`.
    pub down: LoraLinear,
    /// Up projection, `[size, d_model]`.
    pub up: LoraLinear,
    /// Dropout on the output of the up projection.
    pub dropout: Dropout,
    #[module(skip)]
    pub(super) activation: Activation,
    pub(super) norm_before: bool,
    pub(super) norm_after: bool,
    #[module(skip)]
    pub(super) residual: Residual,
    pub(super) scaling: f64,
}

/// Joins the output of a sublayer with the residual stream, with an adapter layer between if there is one, and applies the layer
/// norm behind it, if the model has one there.
///
/// # Shapes
/// - `sublayer`, `residual`: `[batch, seq, d_model]`
/// - returns `[batch, seq, d_model]`
pub(crate) fn joined(
    sublayer: Tensor<3>,
    residual: Tensor<3>,
    norm: Option<&LayerNorm>,
    adapter: Option<&Bottleneck>,
) -> Tensor<3> {
    let join = |sublayer: Tensor<3>| {
        let sum = sublayer + residual.clone();
        match norm {
            Some(norm) => norm.forward(sum),
            None => sum,
        }
    };
    let Some(adapter) = adapter else {
        return join(sublayer);
    };
    let input = if adapter.norm_before {
        join(sublayer.clone())
    } else {
        sublayer.clone()
    };
    let own = match adapter.residual {
        Residual::Sublayer => sublayer,
        Residual::Input => input.clone(),
        Residual::Sum => sublayer + residual.clone(),
    };
    let output = adapter.forward(input) + own;
    if adapter.norm_after {
        join(output)
    } else {
        output
    }
}

impl Bottleneck {
    /// Applies the layer, without its residual.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    /// - returns `[batch, seq, d_model]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        let inner = self.activation.forward(self.down.forward(x)); // [batch, seq, size]
        let up = self.up.forward(inner);
        let up = if self.scaling == 1.0 {
            up
        } else {
            up.mul_scalar(self.scaling)
        };
        self.dropout.forward(up)
    }
}

impl AdapterLayers {
    /// Returns the options.
    pub fn config(&self) -> &AdapterLayersConfig {
        &self.config
    }

    /// Returns the number of parameters.
    pub fn parameters(&self) -> usize {
        trainable_summary(self).total()
    }

    /// Describes the layers in a line.
    pub fn summary(&self) -> String {
        let count = self.layers.iter().map(|layer| {
            usize::from(layer.attention.is_some()) + usize::from(layer.output.is_some())
        });
        format!(
            "{} adapter layers of size {} in {} layers, {} parameters",
            count.sum::<usize>(),
            self.config.size_in(self.d_model),
            self.layers.len(),
            self.parameters()
        )
    }
}
