//! An embedding that reads its adapter on the activation path.

use crate::adapter::{Active, LowRankAdapter, active, without_update};
use crate::split::{SplitWeight, project};
use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, Int, Tensor, module::embedding};

/// Configuration of a [`LoraEmbedding`].
#[derive(Config, Debug)]
pub struct LoraEmbeddingConfig {
    /// Number of rows.
    pub n_embedding: usize,
    /// Size of a row.
    pub d_model: usize,
}

/// `y = W[ids]`, and with an adapter `y = W[ids] + s A[ids] B`.
///
/// As in PEFT, an adapter on an embedding has no dropout, and starts with `A` zero and `B` random.
#[derive(Module, Debug)]
pub struct LoraEmbedding {
    /// Weight, `[n_embedding, d_model]`.
    pub weight: Param<Tensor<2>>,
}

impl LoraEmbeddingConfig {
    /// Creates an embedding, initialized as by Burn's [`EmbeddingConfig`].
    pub fn init(&self, device: &Device) -> LoraEmbedding {
        EmbeddingConfig::new(self.n_embedding, self.d_model)
            .init(device)
            .into()
    }
}

impl From<Embedding> for LoraEmbedding {
    fn from(embedding: Embedding) -> Self {
        Self {
            weight: embedding.weight,
        }
    }
}

impl LoraEmbedding {
    /// Returns the adapter on the weight.
    pub fn adapter(&self) -> Option<&LowRankAdapter> {
        self.weight.reparameterization::<LowRankAdapter>()
    }

    /// Returns the weight for a tied output layer, `[d_model, n_embedding]`, in parts of columns if it is
    /// [split](SplitWeight): without the low-rank update.
    pub fn tied_weight(&self) -> Vec<Tensor<2>> {
        let rows = match SplitWeight::on(&self.weight) {
            Some(split) => split.parts(),
            None => vec![without_update(&self.weight)],
        };
        rows.into_iter().map(Tensor::transpose).collect()
    }

    /// Applies a tied output layer.
    ///
    /// # Shapes
    /// - `hidden`: `[..., d_model]`
    /// - returns `[..., n_embedding]`
    pub fn tied_logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        project(hidden, self.tied_weight())
    }

    /// Looks up rows.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - returns `[batch, seq, d_model]`
    ///
    /// In a batch with an adapter for each example, `ids` of a batch of 1 are shared by all examples, and the output has the
    /// whole batch.
    ///
    /// # Panics
    /// If the batch is neither 1 nor that of the examples with adapters of their own.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        match active(&self.weight, None) {
            Active::PerExample(batch) => batch.embedding(ids),
            Active::One(adapter) => adapter.embedding(ids, self.weight.base()),
            Active::None => match SplitWeight::on(&self.weight) {
                Some(split) => split.lookup(ids),
                None => embedding(self.weight.val(), ids),
            },
        }
    }
}
