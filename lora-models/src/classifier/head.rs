//! Poolers and heads of encoders.

use crate::ModelError;
use crate::activation::Activation;
use crate::encoder::{EncoderConfig, EncoderFamily, HeadKind};
use crate::weights::LayerBuilder;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::{Dropout, LoraLinear};

/// Projection of the first token's hidden state to a vector for the whole input.
#[derive(Module, Debug)]
pub struct Pooler {
    /// Projection, `[hidden_size, hidden_size]`.
    pub dense: LoraLinear,
    /// Dropout on the input, in DeBERTa.
    pub dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Pooler {
    /// Builds the pooler of a family; `None` for a head without one.
    pub(super) fn build(
        maker: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        kind: HeadKind,
    ) -> Result<Option<Self>, ModelError> {
        let without = config.family.is_roberta() || config.decoder.is_some();
        if kind == HeadKind::Token || without {
            return Ok(None);
        }
        Ok(Some(Self {
            dense: maker.linear("pooler.dense", [config.hidden_size; 2])?,
            dropout: Dropout::new(config.pooler_dropout),
            activation: config.pooler_act,
        }))
    }

    /// Applies the pooler.
    ///
    /// # Shapes
    /// - `x`: `[batch, hidden_size]`
    /// - returns `[batch, hidden_size]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.dense.forward(self.dropout.forward(x));
        self.activation.forward(x)
    }
}

/// Projection to the outputs; RoBERTa's has a dense layer before it.
#[derive(Module, Debug)]
pub struct Head {
    /// Dense layer of RoBERTa's head on sequences, `[hidden_size, hidden_size]`, with tanh after it.
    pub dense: Option<LoraLinear>,
    /// Output projection, `[hidden_size, outputs]`; without `dense`, transformers names it as the head itself.
    pub out_proj: LoraLinear,
    /// Dropout on the input of both.
    pub dropout: Dropout,
}

impl Head {
    /// Builds the head of a family.
    pub(super) fn build(
        maker: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        kind: HeadKind,
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        let (path, shape) = ("classifier.out_proj", [d, config.labels.outputs()]);
        if let (Some(_), HeadKind::Sequence) = (&config.decoder, kind) {
            return Ok(Self {
                dense: None,
                out_proj: maker.linear_without_bias(path, shape)?,
                dropout: Dropout::new(0.0),
            });
        }
        let probability = match (kind, config.family) {
            // DeBERTa's `cls_dropout` applies to sequences only.
            (HeadKind::Token, EncoderFamily::Deberta | EncoderFamily::DebertaV2) => None,
            _ => config.classifier_dropout,
        };
        Ok(Self {
            dense: if has_dense(config, kind) {
                Some(maker.linear("classifier.dense", [d, d])?)
            } else {
                None
            },
            out_proj: maker.linear(path, shape)?,
            dropout: Dropout::new(probability.unwrap_or(config.hidden_dropout)),
        })
    }

    /// Applies the head.
    ///
    /// # Shapes
    /// - `x`: `[..., hidden_size]`
    /// - returns `[..., outputs]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut x = self.dropout.forward(x);
        if let Some(dense) = &self.dense {
            x = self.dropout.forward(dense.forward(x).tanh());
        }
        self.out_proj.forward(x)
    }
}

/// Returns true if the head has a dense layer before its projection.
pub(super) fn has_dense(config: &EncoderConfig, kind: HeadKind) -> bool {
    config.family.is_roberta() && kind == HeadKind::Sequence
}
