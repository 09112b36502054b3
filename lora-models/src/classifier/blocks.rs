//! The encoder block by block.

use super::Classifier;
use super::model::Trunk;
use crate::Blocks;
use crate::blocks::{first_trained, trains};
use crate::deberta::DebertaContext;
use crate::encoder::padding_mask;
use burn::tensor::{Bool, Int, Tensor};

/// A batch as [`Classifier::forward`] takes it.
#[derive(Clone, Debug)]
pub struct EncoderInput {
    /// `[batch, seq]`.
    pub ids: Tensor<2, Int>,
    /// `[batch, seq]`, true for a token, false for padding.
    pub mask: Tensor<2, Bool>,
    /// `[batch, seq]`.
    pub type_ids: Option<Tensor<2, Int>>,
}

/// What all layers of an encoder look at.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // There is one.
pub enum EncoderShared {
    /// Added to the scores, `[batch, 1, 1, seq]`.
    Bert(Tensor<4>),
    /// The same with distances, and the mask.
    Deberta(DebertaContext, Tensor<2, Bool>),
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
        let embeddings = match &self.trunk {
            Trunk::Bert(model) => &model.embeddings,
            Trunk::Deberta(model) => &model.embeddings,
        };
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

    /// A head on sequences reads the first token of each after the last block: it has no others, `[batch, 1, hidden_size]`.
    ///
    /// # Panics
    /// If `shared` is another model's.
    fn block(&self, index: usize, x: Tensor<3>, shared: &EncoderShared) -> Tensor<3> {
        match (&self.trunk, shared) {
            (Trunk::Bert(model), EncoderShared::Bert(hidden)) => {
                model.encoder.forward_layer(index, self.rows(), x, hidden)
            }
            (Trunk::Deberta(model), EncoderShared::Deberta(context, mask)) => model
                .encoder
                .forward_layer(index, self.rows(), x, context, mask),
            _ => panic!("what blocks share is of another family's model"),
        }
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
