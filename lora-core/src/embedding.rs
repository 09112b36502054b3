//! An embedding that reads its adapter on the activation path.

use crate::{LowRankAdapter, named};
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
/// As in PEFT the adapter has no dropout here, `A` starts at zero and `B` at random.
#[derive(Module, Debug)]
pub struct LoraEmbedding {
    /// `[n_embedding, d_model]`.
    pub weight: Param<Tensor<2>>,
}

impl LoraEmbeddingConfig {
    /// An embedding that starts as Burn's [`EmbeddingConfig`] does.
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
    /// The adapter on the weight, if there is one.
    pub fn adapter(&self) -> Option<&LowRankAdapter> {
        self.weight.reparameterization::<LowRankAdapter>()
    }

    /// The weight as a tied output layer reads it: what trained whole, without the low-rank update.
    pub fn tied_weight(&self) -> Tensor<2> {
        named::without_update(&self.weight)
    }

    /// Looks rows up.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - returns `[batch, seq, d_model]`
    ///
    /// Where each example has an adapter of its own, a batch of 1 is what all of them share, and the output has all.
    ///
    /// # Panics
    /// If each example has an adapter of its own and the batch is neither theirs nor 1.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        if let Some(y) = named::embedding(&ids, &self.weight) {
            return y; // Each example has an adapter of its own.
        }
        match named::acting_adapter(&self.weight) {
            None => embedding(self.weight.val(), ids),
            Some(adapter) => adapter.embedding(ids, self.weight.base()),
        }
    }
}
