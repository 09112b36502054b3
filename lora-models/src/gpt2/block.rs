//! One layer of the model: attention, then a perceptron, each on a normalised residual stream.

use super::attention::{Attention, Past};
use super::mask::Visible;
use crate::activation::Activation;
use crate::prefix::PrefixLayer;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::{Dropout, LayerNorm, LoraLinear};

/// `x + attn(ln_1(x))`, then `x + mlp(ln_2(x))`.
#[derive(Module, Debug)]
pub struct Block {
    /// Before the attention.
    pub ln_1: LayerNorm,
    /// Causal self-attention.
    pub attn: Attention,
    /// Before the perceptron.
    pub ln_2: LayerNorm,
    /// The perceptron.
    pub mlp: Mlp,
}

impl Block {
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    /// - `visible`: as in the attention; the prefix is never hidden
    /// - returns `[batch, seq, d_model]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        visible: &Visible,
        past: Option<Past<'_>>,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3> {
        let normed = self.ln_1.forward(x.clone());
        let x = self.attn.forward(normed, visible, past, prefix) + x;
        self.mlp.forward(self.ln_2.forward(x.clone())) + x
    }
}

/// Two linear layers with an activation between them.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[d_model, d_inner]`.
    pub c_fc: LoraLinear,
    /// `[d_inner, d_model]`.
    pub c_proj: LoraLinear,
    /// On the output.
    pub dropout: Dropout,
    #[module(skip)]
    pub(super) activation: Activation,
}

impl Mlp {
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    /// - returns `[batch, seq, d_model]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = self.activation.forward(self.c_fc.forward(x)); // [batch, seq, d_inner]
        self.dropout.forward(self.c_proj.forward(inner))
    }
}
