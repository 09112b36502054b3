//! The encoder.

use super::BertSelfAttention;
use crate::ModelError;
use crate::encoder::{Embeddings, EncoderConfig, Layer, Rows, hidden_keys};
use crate::weights::Maker;
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};

/// BERT's, RoBERTa's and XLM-RoBERTa's encoder.
#[derive(Module, Debug)]
pub struct BertModel {
    /// Tokens to vectors.
    pub embeddings: Embeddings,
    /// The layers.
    pub encoder: BertEncoder,
}

/// The layers, one after the other.
#[derive(Module, Debug)]
pub struct BertEncoder {
    /// First to last.
    pub layer: Vec<Layer<BertSelfAttention>>,
}

impl BertEncoder {
    /// One layer, with these rows of the last.
    pub(crate) fn forward_layer(
        &self,
        index: usize,
        rows: Rows,
        x: Tensor<3>,
        hidden: &Tensor<4>,
    ) -> Tensor<3> {
        let layer = &self.layer[index];
        match rows.of(index, self.layer.len()) {
            Rows::All => layer.forward(x, hidden),
            Rows::First => layer.forward_first(x, hidden),
        }
    }
}

impl BertModel {
    pub(crate) fn build(
        maker: &mut Maker<'_>,
        config: &EncoderConfig,
        path: &str,
    ) -> Result<Self, ModelError> {
        let embeddings = Embeddings::build(maker, config, &format!("{path}.embeddings"))?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for index in 0..config.num_hidden_layers {
            let path = format!("{path}.encoder.layer.{index}");
            layers.push(Layer::build(maker, config, &path, |maker, path| {
                BertSelfAttention::build(maker, config, path)
            })?);
        }
        Ok(Self {
            embeddings,
            encoder: BertEncoder { layer: layers },
        })
    }

    /// The hidden states of every token, after the last layer.
    ///
    /// # Shapes
    /// - `ids`, `type_ids`: `[batch, seq]`
    /// - `mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, seq, hidden_size]`; what it holds for padding means nothing
    ///
    /// # Panics
    /// If the shapes do not fit, or there are more tokens than positions.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<3> {
        self.forward_to(Rows::All, ids, mask, type_ids)
    }

    /// [`forward`](Self::forward), with these rows of the last layer.
    pub(crate) fn forward_to(
        &self,
        rows: Rows,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<3> {
        let hidden = hidden_keys(mask);
        let x = self.embeddings.forward(ids, mask, type_ids);
        let layers = 0..self.encoder.layer.len();
        layers.fold(x, |x, index| {
            self.encoder.forward_layer(index, rows, x, &hidden)
        })
    }
}
