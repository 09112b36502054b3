//! Layer of an encoder: attention, then an MLP, each added to its input and normalized.

use super::EncoderConfig;
use crate::ModelError;
use crate::activation::Activation;
use crate::adapter_layers::{Bottleneck, joined};
use crate::added::LayerAdded;
use crate::prefix::PrefixLayer;
use crate::weights::LayerBuilder;
use burn::module::Module;
use burn::tensor::{Bool, Tensor};
use lora_core::{Dropout, LayerNorm, LoraLinear};

/// Score bias of masked positions: its exponential is exactly zero beside any real score, and a row with only masked
/// positions gives an average and not NaN.
const MASKED: f32 = -1e9;

/// Self-attention, without the output projection.
pub trait SelfAttention: Module {
    /// Inputs shared by all layers: the mask, positions.
    type Context;

    /// Attends from every token to every other.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    /// - `prefix`: keys and values of virtual tokens, which every token attends to; the context masks them too
    /// - returns `[batch, seq, hidden_size]`
    fn forward(
        &self,
        x: Tensor<3>,
        context: &Self::Context,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3>;
}

/// Rows of the last layer to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All tokens.
    All,
    /// One token of each sequence, by its index.
    One(usize),
}

impl Rows {
    /// Returns the rows that layer `index` must compute: all, except in the last layer.
    pub(crate) fn for_layer(self, index: usize, layers: usize) -> Self {
        if index + 1 == layers { self } else { Self::All }
    }
}

/// Encoder layer, generic over its attention.
#[derive(Module, Debug)]
pub struct Layer<A: Module> {
    /// Attention with its output projection.
    pub attention: Attention<A>,
    /// First half of the MLP.
    pub intermediate: Intermediate,
    /// Second half of the MLP.
    pub output: Residual,
}

/// Attention whose output is added to its input.
#[derive(Module, Debug)]
pub struct Attention<A: Module> {
    /// Self-attention; `self` in Python.
    pub self_attn: A,
    /// Output projection.
    pub output: Residual,
}

/// Linear layer whose output is added to the layer's input, and normalized.
#[derive(Module, Debug)]
pub struct Residual {
    /// Projection.
    pub dense: LoraLinear,
    /// Layer norm of the sum; `LayerNorm` in Python.
    pub layer_norm: LayerNorm,
    /// Dropout on the projection.
    pub dropout: Dropout,
}

/// First half of the MLP.
#[derive(Module, Debug)]
pub struct Intermediate {
    /// Projection, `[hidden_size, intermediate_size]`.
    pub dense: LoraLinear,
    #[module(skip)]
    activation: Activation,
}

impl<A: SelfAttention> Layer<A> {
    /// Builds all layers of an encoder; `path` is that of their list.
    pub(crate) fn build_all(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        path: &str,
        attention: impl Fn(&mut LayerBuilder<'_>, &str) -> Result<A, ModelError>,
    ) -> Result<Vec<Self>, ModelError> {
        let layers = 0..config.num_hidden_layers;
        let build = |index| Self::build(builder, config, &format!("{path}.{index}"), &attention);
        layers.map(build).collect()
    }

    /// Builds the layer at `path`; `attention` builds the attention at its own path.
    fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        path: &str,
        attention: impl FnOnce(&mut LayerBuilder<'_>, &str) -> Result<A, ModelError>,
    ) -> Result<Self, ModelError> {
        let (d, inner) = (config.hidden_size, config.intermediate_size);
        let name = |name: &str| format!("{path}.{name}");
        Ok(Self {
            attention: Attention {
                self_attn: attention(builder, &name("attention.self_attn"))?,
                output: Residual::build(builder, config, &name("attention.output"), d)?,
            },
            intermediate: Intermediate {
                dense: builder.linear(&name("intermediate.dense"), [d, inner])?,
                activation: config.hidden_act,
            },
            output: Residual::build(builder, config, &name("output"), inner)?,
        })
    }

    /// Applies attention and MLP, to all tokens or to one of each sequence. A head on sequences reads no more
    /// of the last layer, which takes a quarter of the work.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    /// - returns `[batch, seq, hidden_size]`, or `[batch, 1, hidden_size]` for [`Rows::One`]
    pub(crate) fn forward(
        &self,
        rows: Rows,
        x: Tensor<3>,
        context: &A::Context,
        added: LayerAdded<'_>,
    ) -> Tensor<3> {
        let attention = &self.attention;
        let attended = attention
            .self_attn
            .forward(x.clone(), context, added.prefix);
        let (attended, x) = match rows {
            Rows::All => (attended, x),
            Rows::One(row) => (attended.narrow(1, row, 1), x.narrow(1, row, 1)),
        };
        let x = attention
            .output
            .forward(attended, x, added.after_attention());
        let inner = self.intermediate.dense.forward(x.clone()); // [batch, seq, intermediate_size]
        let inner = self.intermediate.activation.forward(inner);
        self.output.forward(inner, x, added.after_mlp())
    }
}

impl Residual {
    fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        path: &str,
        d_in: usize,
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        Ok(Self {
            dense: builder.linear(&format!("{path}.dense"), [d_in, d])?,
            layer_norm: builder.norm(&format!("{path}.layer_norm"), d, config.layer_norm_eps)?,
            dropout: Dropout::new(config.hidden_dropout),
        })
    }

    /// Computes `norm(drop(dense(x)) + input)`, with an adapter layer if there is one.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, d_in]`, `input`: `[batch, seq, hidden_size]`
    /// - returns `[batch, seq, hidden_size]`
    pub fn forward(
        &self,
        x: Tensor<3>,
        input: Tensor<3>,
        adapter: Option<&Bottleneck>,
    ) -> Tensor<3> {
        let x = self.dropout.forward(self.dense.forward(x));
        joined(x, input, Some(&self.layer_norm), adapter)
    }
}

/// Builds the bias on the scores that masks padding, shared by all layers.
///
/// # Shapes
/// - `mask`: `[batch, seq]`, true for a token, false for padding
/// - returns `[batch, 1, 1, seq]`
pub(crate) fn padding_mask(mask: &Tensor<2, Bool>) -> Tensor<4> {
    let hidden = mask.clone().bool_not().float() * MASKED;
    hidden.unsqueeze_dims::<4>(&[1, 2])
}
