//! What is known of an adapted module, beside the values of its adapter.

use crate::modules::{AdapterPath, LayerKind};
use crate::targets::Slices;

/// One adapted module, as [`attach`](crate::attach()) reports it.
#[derive(Clone, Debug)]
pub struct AdaptedModule {
    /// Name of the module, such as `transformer.h.0.attn.c_attn`.
    pub module: String,
    /// Path of its weight in the module: the name with `.weight`, but where the model has other
    /// names in Python.
    pub parameter: String,
    /// Whether its weight is multiplied or looked up.
    pub kind: LayerKind,
    /// Shape of the weight, `[d_in, d_out]`.
    pub shape: [usize; 2],
    /// Rank; with slices, of each slice.
    pub rank: usize,
    /// Alpha.
    pub alpha: f64,
    /// What `A B` is multiplied by.
    pub scale: f64,
    /// Where the adapter acts.
    pub path: AdapterPath,
    /// The adapted parts of a fused projection.
    pub slices: Option<Slices>,
    /// Whether magnitude and direction train apart (DoRA).
    pub dora: bool,
    /// Path of the layer's bias, where the adapter adds one to it.
    pub bias: Option<String>,
    /// Whether the factors start at a part of the weight, so that the adapter is what they change.
    pub starts_at_weight: bool,
}

impl AdaptedModule {
    /// Rank of the standard adapter that computes the same: that of all slices together, and twice that
    /// where the factors started at a part of the weight.
    pub fn total_rank(&self) -> usize {
        let times = if self.starts_at_weight { 2 } else { 1 };
        times * self.trained_rank()
    }

    /// Number of columns of `A` and rows of `B` that train.
    pub(crate) fn trained_rank(&self) -> usize {
        self.rank * self.slices.as_ref().map_or(1, |s| s.adapted.len())
    }

    /// Number of columns of `B`: of one part, where the target is sliced.
    pub(crate) fn block_width(&self) -> usize {
        let d_out = self.shape[1];
        self.slices.as_ref().map_or(d_out, |s| d_out / s.parts)
    }

    /// Shapes of `A` and `B` as the adapter holds them.
    pub(crate) fn factor_shapes(&self) -> [[usize; 2]; 2] {
        let rank = self.trained_rank();
        [[self.shape[0], rank], [rank, self.block_width()]]
    }

    /// Number of trainable parameters of the adapter.
    pub fn parameters(&self) -> usize {
        let factors: usize = self.factor_shapes().iter().map(|[m, n]| m * n).sum();
        let vectors = usize::from(self.dora) + usize::from(self.bias.is_some());
        factors + vectors * self.shape[1]
    }
}
