//! Convolution beside the first layer.

use crate::ModelError;
use crate::activation::Activation;
use crate::encoder::{EncoderConfig, RelativeConv};
use crate::weights::LayerBuilder;
use burn::module::{Module, Param};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Bool, Tensor, module::conv1d};
use lora_core::{Dropout, LayerNorm};

/// Convolution over the embeddings whose output is added to the first layer's, and normalized.
#[derive(Module, Debug)]
pub struct ConvLayer {
    /// Convolution.
    pub conv: Conv,
    /// Layer norm of the sum; `LayerNorm` in Python.
    pub layer_norm: LayerNorm,
    /// Dropout on the convolution.
    pub dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

/// Convolution over a sequence that keeps its length.
#[derive(Module, Debug)]
pub struct Conv {
    /// Kernels, `[hidden_size, hidden_size / groups, kernel]`.
    pub weight: Param<Tensor<3>>,
    /// Bias, `[hidden_size]`.
    pub bias: Param<Tensor<1>>,
    groups: usize,
}

impl ConvLayer {
    pub(super) fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        options: RelativeConv,
        path: &str,
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        let name = |name: &str| format!("{path}.{name}");
        let shape = [d, d / options.groups, options.kernel];
        Ok(Self {
            conv: Conv {
                weight: builder.param(&name("conv.weight"), shape)?,
                bias: builder.param(&name("conv.bias"), [d])?,
                groups: options.groups,
            },
            layer_norm: builder.norm(&name("layer_norm"), d, config.layer_norm_eps)?,
            dropout: Dropout::new(config.hidden_dropout),
            activation: options.activation,
        })
    }

    /// Computes `norm(layer + activation(drop(conv(embeddings))))`, zero for padding.
    ///
    /// The embeddings of padding are zero already, so a token beside it sees the same as at the end of a sequence.
    ///
    /// # Shapes
    /// - `embeddings`, `layer`: `[batch, seq, hidden_size]`
    /// - `mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, seq, hidden_size]`
    pub fn forward(
        &self,
        embeddings: Tensor<3>,
        layer: Tensor<3>,
        mask: &Tensor<2, Bool>,
    ) -> Tensor<3> {
        let conv = self.dropout.forward(self.conv.forward(embeddings));
        let x = layer + self.activation.forward(conv);
        self.layer_norm.forward(x) * mask.clone().float().unsqueeze_dim::<3>(2)
    }
}

impl Conv {
    /// Applies the convolution.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    /// - returns `[batch, seq, hidden_size]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.weight.val();
        let padding = (weight.dims()[2] - 1) / 2;
        let options = ConvOptions::new([1], [padding], [1], self.groups);
        let x = x.swap_dims(1, 2); // [batch, hidden_size, seq]
        conv1d(x, weight, Some(self.bias.val()), options).swap_dims(1, 2)
    }
}
