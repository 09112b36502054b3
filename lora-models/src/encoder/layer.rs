//! One layer of an encoder: attention, then a perceptron, each added to its input and normalised.

use super::EncoderConfig;
use crate::ModelError;
use crate::activation::Activation;
use crate::weights::{Maker, dropout};
use burn::module::Module;
use burn::tensor::{Bool, Tensor};
use lora_core::{Dropout, LayerNorm, LoraLinear};

/// Added to the score of a hidden position: against any real score its exponential is exactly zero,
/// and a row of which everything is hidden gives some average and not NaN.
const HIDDEN: f32 = -1e9;

/// Self-attention, without the projection of its output.
pub trait SelfAttention: Module {
    /// What all layers share: the mask, positions.
    type Context;

    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    /// - returns `[batch, seq, hidden_size]`
    fn forward(&self, x: Tensor<3>, context: &Self::Context) -> Tensor<3>;
}

/// The tokens of which the last layer's output is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Each.
    All,
    /// The first of each sequence.
    First,
}

impl Rows {
    /// Those of layer `index`: of all but the last each is wanted.
    pub(crate) fn of(self, index: usize, layers: usize) -> Self {
        match index + 1 == layers {
            true => self,
            false => Self::All,
        }
    }
}

/// A layer around an attention of some kind.
#[derive(Module, Debug)]
pub struct Layer<A: Module> {
    /// Attention and its output.
    pub attention: Attention<A>,
    /// Into the perceptron.
    pub intermediate: Intermediate,
    /// Out of it.
    pub output: Residual,
}

/// Attention with its output added to its input.
#[derive(Module, Debug)]
pub struct Attention<A: Module> {
    /// The attention; `self` in Python.
    pub self_attn: A,
    /// Its output.
    pub output: Residual,
}

/// A linear layer whose output is added to what went in before it, and normalised.
#[derive(Module, Debug)]
pub struct Residual {
    /// The projection.
    pub dense: LoraLinear,
    /// Of the sum; `LayerNorm` in Python.
    pub layer_norm: LayerNorm,
    /// On the projection.
    pub dropout: Dropout,
}

/// The first half of the perceptron.
#[derive(Module, Debug)]
pub struct Intermediate {
    /// `[hidden_size, intermediate_size]`.
    pub dense: LoraLinear,
    #[module(skip)]
    activation: Activation,
}

impl<A: SelfAttention> Layer<A> {
    /// Makes the layer at `path`, with the attention that `attention` makes at its own.
    pub(crate) fn build(
        maker: &mut Maker<'_>,
        config: &EncoderConfig,
        path: &str,
        attention: impl FnOnce(&mut Maker<'_>, &str) -> Result<A, ModelError>,
    ) -> Result<Self, ModelError> {
        let (d, inner) = (config.hidden_size, config.intermediate_size);
        let name = |name: &str| format!("{path}.{name}");
        Ok(Self {
            attention: Attention {
                self_attn: attention(maker, &name("attention.self_attn"))?,
                output: Residual::build(maker, config, &name("attention.output"), d)?,
            },
            intermediate: Intermediate {
                dense: maker.linear(&name("intermediate.dense"), [d, inner])?,
                activation: config.hidden_act,
            },
            output: Residual::build(maker, config, &name("output"), inner)?,
        })
    }

    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    /// - returns `[batch, seq, hidden_size]`
    pub fn forward(&self, x: Tensor<3>, context: &A::Context) -> Tensor<3> {
        let attended = self.attention.self_attn.forward(x.clone(), context);
        self.after_attention(attended, x)
    }

    /// [`forward`](Self::forward) of the first token of each sequence alone: all that a head on sequences reads of the last
    /// layer, at a quarter of its work.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    /// - returns `[batch, 1, hidden_size]`
    pub fn forward_first(&self, x: Tensor<3>, context: &A::Context) -> Tensor<3> {
        let attended = self.attention.self_attn.forward(x.clone(), context);
        self.after_attention(attended.narrow(1, 0, 1), x.narrow(1, 0, 1))
    }

    fn after_attention(&self, attended: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        let x = self.attention.output.forward(attended, x);
        let inner = self.intermediate.dense.forward(x.clone()); // [batch, seq, intermediate_size]
        self.output
            .forward(self.intermediate.activation.forward(inner), x)
    }
}

impl Residual {
    fn build(
        maker: &mut Maker<'_>,
        config: &EncoderConfig,
        path: &str,
        d_in: usize,
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        Ok(Self {
            dense: maker.linear(&format!("{path}.dense"), [d_in, d])?,
            layer_norm: maker.norm(&format!("{path}.layer_norm"), d, config.layer_norm_eps)?,
            dropout: dropout(config.hidden_dropout),
        })
    }

    /// `norm(drop(dense(x)) + input)`.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, d_in]`, `input`: `[batch, seq, hidden_size]`
    /// - returns `[batch, seq, hidden_size]`
    pub fn forward(&self, x: Tensor<3>, input: Tensor<3>) -> Tensor<3> {
        let x = self.dropout.forward(self.dense.forward(x));
        self.layer_norm.forward(x + input)
    }
}

/// What is added to the scores so that no token looks at padding, made once for all layers.
///
/// # Shapes
/// - `mask`: `[batch, seq]`, true for a token, false for padding
/// - returns `[batch, 1, 1, seq]`
pub(crate) fn hidden_keys(mask: &Tensor<2, Bool>) -> Tensor<4> {
    let hidden = mask.clone().bool_not().float() * HIDDEN;
    hidden.unsqueeze_dims::<4>(&[1, 2])
}
