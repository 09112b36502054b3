//! A layer of GPT-2: attention and MLP, each on a normalized residual stream.

use super::attention::Attention;
use crate::activation::Activation;
use crate::adapter_layers::joined;
use crate::added::LayerAdded;
use crate::lm::{Past, TextMask};
use crate::prefix::PrefixLayer;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::{Dropout, LayerNorm, LoraLinear};

/// Layer of GPT-2: `x + attn(ln_1(x))`, then `x + mlp(ln_2(x))`; adapter layers stand before the sums.
#[derive(Module, Debug)]
pub struct Block {
    /// Layer norm before the attention.
    pub ln_1: LayerNorm,
    /// Causal self-attention.
    pub attn: Attention,
    /// Layer norm before the MLP.
    pub ln_2: LayerNorm,
    /// MLP.
    pub mlp: Mlp,
}

impl Block {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    /// - `mask`: padding mask, as for [`Attention`]; the prefix is never masked
    /// - returns `[batch, seq, d_model]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        mask: &TextMask,
        past: Option<Past<'_>>,
        added: LayerAdded<'_>,
    ) -> Tensor<3> {
        let normed = self.ln_1.forward(x.clone());
        let attended = self.attn.forward(normed, mask, past, added.prefix);
        let x = joined(attended, x, None, added.after_attention());
        let inner = self.mlp.forward(self.ln_2.forward(x.clone()));
        joined(inner, x, None, added.after_mlp())
    }

    /// Computes the keys and values of hidden states that enter the layer.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    pub(super) fn keys_and_values(&self, x: Tensor<3>) -> PrefixLayer {
        self.attn.keys_and_values(self.ln_1.forward(x))
    }
}

/// MLP: two linear layers with an activation between them.
#[derive(Module, Debug)]
pub struct Mlp {
    /// First layer, `[d_model, d_inner]`.
    pub c_fc: LoraLinear,
    /// Second layer, `[d_inner, d_model]`.
    pub c_proj: LoraLinear,
    /// Dropout on the output.
    pub dropout: Dropout,
    #[module(skip)]
    pub(super) activation: Activation,
}

impl Mlp {
    /// Applies the MLP.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    /// - returns `[batch, seq, d_model]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = self.activation.forward(self.c_fc.forward(x)); // [batch, seq, d_inner]
        self.dropout.forward(self.c_proj.forward(inner))
    }
}
