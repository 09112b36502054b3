//! Encoder of BERT, RoBERTa and XLM-RoBERTa.

use super::BertSelfAttention;
use crate::ModelError;
use crate::added::{Added, LayerAdded};
use crate::encoder::{Embeddings, EncoderConfig, Layer, Rows};
use crate::weights::LayerBuilder;
use burn::module::Module;
use burn::tensor::Tensor;

/// Encoder of BERT, RoBERTa and XLM-RoBERTa.
#[derive(Module, Debug)]
pub struct BertModel {
    /// Embeddings of the input.
    pub embeddings: Embeddings,
    /// Encoder layers.
    pub encoder: BertEncoder,
    /// Virtual tokens before every text, and adapter layers.
    pub added: Added,
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
        added: LayerAdded<'_>,
    ) -> Tensor<3> {
        let rows = rows.for_layer(index, self.layer.len());
        self.layer[index].forward(rows, x, hidden, added)
    }
}

impl BertModel {
    pub(crate) fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        path: &str,
    ) -> Result<Self, ModelError> {
        let embeddings = Embeddings::build(builder, config, &format!("{path}.embeddings"))?;
        let path = format!("{path}.encoder.layer");
        let layer = Layer::build_all(builder, config, &path, |builder, path| {
            BertSelfAttention::build(builder, config, path)
        })?;
        let encoder = BertEncoder { layer };
        Ok(Self {
            embeddings,
            encoder,
            added: Added::none(),
        })
    }
}
