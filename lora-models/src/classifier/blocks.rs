//! Encoders block by block.

use super::model::{Classifier, EncoderInput, Trunk};
use crate::Blocks;
use crate::blocks::{first_trained, trains};
use crate::deberta::DebertaContext;
use crate::encoder::{Rows, padding_mask};
use burn::tensor::{Bool, Tensor};

/// State that all layers of an encoder share.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A batch has one.
pub enum EncoderShared {
    /// Bias of the scores that masks padding, `[batch, 1, 1, seq]`.
    Bert(Tensor<4>),
    /// Mask and relative positions of DeBERTa, and the attention mask.
    Deberta(DebertaContext, Tensor<2, Bool>),
}

impl Classifier {
    /// Returns the hidden states after the last layer, of which only `rows` are computed.
    pub(super) fn states(&self, rows: Rows, input: &EncoderInput) -> Tensor<3> {
        let x = self.embed(input);
        let shared = &self.shared(input);
        let layers = 0..self.blocks();
        layers.fold(x, |x, index| self.layer(index, rows, x, shared))
    }

    fn layer(&self, index: usize, rows: Rows, x: Tensor<3>, shared: &EncoderShared) -> Tensor<3> {
        match (&self.trunk, shared) {
            (Trunk::Bert(model), EncoderShared::Bert(hidden)) => {
                model.encoder.forward_layer(index, rows, x, hidden)
            }
            (Trunk::Deberta(model), EncoderShared::Deberta(context, mask)) => {
                model.encoder.forward_layer(index, rows, x, context, mask)
            }
            _ => panic!("the shared state belongs to a model of another family"),
        }
    }
}

impl Blocks for Classifier {
    type Input = EncoderInput;
    type Shared = EncoderShared;

    fn blocks(&self) -> usize {
        match &self.trunk {
            Trunk::Bert(model) => model.encoder.layer.len(),
            Trunk::Deberta(model) => model.encoder.layer.len(),
        }
    }

    fn embed(&self, input: &EncoderInput) -> Tensor<3> {
        let embeddings = self.trunk.embeddings();
        embeddings.forward(input.ids.clone(), &input.mask, input.type_ids.clone())
    }

    fn shared(&self, input: &EncoderInput) -> EncoderShared {
        match &self.trunk {
            Trunk::Bert(_) => EncoderShared::Bert(padding_mask(&input.mask)),
            Trunk::Deberta(model) => {
                EncoderShared::Deberta(model.encoder.context(&input.mask), input.mask.clone())
            }
        }
    }

    /// Applies a block. For a head on sequences, which reads the first token alone, the last block returns
    /// `[batch, 1, hidden_size]`.
    ///
    /// # Panics
    /// If `shared` belongs to a model of another family.
    fn block(&self, index: usize, x: Tensor<3>, shared: &EncoderShared) -> Tensor<3> {
        self.layer(index, self.rows(), x, shared)
    }

    fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        x
    }

    fn first_trained(&self) -> Option<usize> {
        match &self.trunk {
            Trunk::Bert(model) => first_trained(&model.encoder.layer, trains(&model.embeddings)),
            Trunk::Deberta(model) => {
                let encoder = &model.encoder;
                let others = trains(&model.embeddings)
                    || trains(&encoder.rel_embeddings)
                    || trains(&encoder.layer_norm)
                    || trains(&encoder.conv);
                first_trained(&encoder.layer, others)
            }
        }
    }
}
