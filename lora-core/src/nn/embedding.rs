//! An embedding that reads its adapter on the activation path.

use crate::adapter::{Active, BaseWeight, LowRankAdapter, active, packed_weight};
use crate::ops::{CrossEntropy, HeadLoss};
use crate::quantize::PackedWeight;
use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, Int, Tensor};

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

    /// Returns the packed weight, if it is in 16 bits.
    pub fn packed(&self) -> Option<&PackedWeight> {
        packed_weight(&self.weight)
    }

    /// Returns the logits of a tied output layer, `x Wᵀ`, without the low-rank update.
    ///
    /// # Shapes
    /// - `x`: `[..., d_model]`
    /// - returns `[..., n_embedding]`
    pub fn tied_logits<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        BaseWeight::without_update(&self.weight).linear_transposed(x)
    }

    /// Computes the cross entropy of hidden states through a tied output layer, as [`head_loss`](crate::ops::head_loss) does.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, d_model]`, `targets`: `[rows]`
    pub fn tied_head_loss(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        options: &CrossEntropy,
    ) -> HeadLoss {
        BaseWeight::without_update(&self.weight).head_loss(hidden, targets, options, true)
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
        let base = || BaseWeight::below_adapters(&self.weight);
        match active(&self.weight, None) {
            Active::PerExample(batch) => batch.embedding(ids, &base()),
            Active::One(adapter) => adapter.embedding(ids, &base()),
            Active::None => BaseWeight::whole(&self.weight).embedding(ids),
        }
    }
}
