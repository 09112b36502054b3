//! Encoder of BERT, RoBERTa and XLM-RoBERTa.

use super::BertSelfAttention;
use crate::ModelError;
use crate::encoder::{Embeddings, EncoderConfig, Layer, Rows, padding_mask};
use crate::weights::LayerBuilder;
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};

/// Encoder of BERT, RoBERTa and XLM-RoBERTa.
#[derive(Module, Debug)]
pub struct BertModel {
    /// Embeddings of the input.
    pub embeddings: Embeddings,
    /// Encoder layers.
    pub encoder: BertEncoder,
}

/// Sequence of encoder layers.
#[derive(Module, Debug)]
pub struct BertEncoder {
    /// Layers, first to last.
    pub layer: Vec<Layer<BertSelfAttention>>,
}

impl BertEncoder {
    /// Runs one layer; the last layer computes only `rows`.
    pub(crate) fn forward_layer(
        &self,
        index: usize,
        rows: Rows,
        x: Tensor<3>,
        hidden: &Tensor<4>,
    ) -> Tensor<3> {
        let rows = rows.for_layer(index, self.layer.len());
        self.layer[index].forward(rows, x, hidden)
    }
}

impl BertModel {
    pub(crate) fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        path: &str,
    ) -> Result<Self, ModelError> {
        let embeddings = Embeddings::build(builder, config, &format!("{path}.embeddings"))?;
        let layers = (0..config.num_hidden_layers).map(|index| {
            let path = format!("{path}.encoder.layer.{index}");
            Layer::build(builder, config, &path, |builder, path| {
                BertSelfAttention::build(builder, config, path)
            })
        });
        Ok(Self {
            embeddings,
            encoder: BertEncoder {
                layer: layers.collect::<Result<_, _>>()?,
            },
        })
    }

    /// Computes the hidden states after the last layer, of which only `rows` are computed.
    ///
    /// # Shapes
    /// - `ids`, `type_ids`: `[batch, seq]`
    /// - `mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, seq, hidden_size]`; the values at padding are meaningless. `[batch, 1, hidden_size]` for
    ///   [`Rows::First`], unless the only layer has a convolution beside it.
    ///
    /// # Panics
    /// If the shapes do not fit, or there are more tokens than positions.
    pub fn forward(
        &self,
        rows: Rows,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<3> {
        let hidden = padding_mask(mask);
        let x = self.embeddings.forward(ids, mask, type_ids);
        let layers = 0..self.encoder.layer.len();
        layers.fold(x, |x, index| {
            self.encoder.forward_layer(index, rows, x, &hidden)
        })
    }
}
