//! A layer of a decoder.

use super::attention::Attention;
use super::mlp::Mlp;
use super::rope::Angles;
use super::shared::DecoderShared;
use crate::adapter_layers::joined;
use crate::added::LayerAdded;
use crate::lm::Past;
use crate::prefix::PrefixLayer;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::{Dropout, RmsNorm};

/// Layer of a decoder: attention and MLP, each added to the residual stream.
///
/// The number and places of its norms depend on the family; `post_attention_layernorm` is before the MLP in Llama, and after the
/// attention in the families that have a norm after the MLP too.
#[derive(Module, Debug)]
pub struct Layer {
    /// Norm before the attention.
    pub input_layernorm: Option<RmsNorm>,
    /// Self-attention.
    pub self_attn: Attention,
    /// Norm after the attention, or before the MLP.
    pub post_attention_layernorm: RmsNorm,
    /// Norm before the MLP, where the other is after the attention.
    pub pre_feedforward_layernorm: Option<RmsNorm>,
    /// MLP.
    pub mlp: Mlp,
    /// Norm after the MLP.
    pub post_feedforward_layernorm: Option<RmsNorm>,
    /// Dropout on the output of attention and MLP.
    pub resid_dropout: Dropout,
    pub(super) residual: f64,
}

impl Layer {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    /// - returns `[batch, seq, hidden_size]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        shared: &DecoderShared,
        past: Option<Past<'_>>,
        added: LayerAdded<'_>,
    ) -> Tensor<3> {
        let after = self.post_feedforward_layernorm.as_ref();
        let normed = of(self.input_layernorm.as_ref(), x.clone());
        let attended = (self.self_attn).forward(normed, shared, past, added.prefix);
        let norm = after.map(|_| &self.post_attention_layernorm);
        let attended = self.scaled(of(norm, attended));
        let x = joined(attended, x, None, added.after_attention());

        let before = match after {
            None => Some(&self.post_attention_layernorm),
            Some(_) => self.pre_feedforward_layernorm.as_ref(),
        };
        let inner = self.mlp.forward(of(before, x.clone()));
        let inner = self.scaled(of(after, inner));
        joined(inner, x, None, added.after_mlp())
    }

    /// Computes the keys and values of hidden states that enter the layer.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    pub(super) fn keys_and_values(&self, x: Tensor<3>, angles: &[Angles]) -> PrefixLayer {
        let normed = of(self.input_layernorm.as_ref(), x);
        self.self_attn.keys_and_values(normed, angles)
    }

    /// Applies dropout and the factor on what is added to the residual stream.
    fn scaled(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.resid_dropout.forward(x);
        if self.residual == 1.0 {
            x
        } else {
            x * self.residual
        }
    }
}

fn of(norm: Option<&RmsNorm>, x: Tensor<3>) -> Tensor<3> {
    match norm {
        None => x,
        Some(norm) => norm.forward(x),
    }
}
