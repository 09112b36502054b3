//! An adapted module, without the values of its adapter.

use super::fused::Slices;
use super::kind::{AdapterPath, LayerKind};

/// An adapted module, as [`attach`](crate::attach()) reports it.
#[derive(Clone, Debug)]
pub struct AdaptedModule {
    /// Name of the module, such as `transformer.h.0.attn.c_attn`.
    pub module: String,
    /// Path of its weight: the module's name with `.weight`, unless the model has other names in Python.
    pub parameter: String,
    /// Kind of layer.
    pub kind: LayerKind,
    /// Shape of the weight, `[d_in, d_out]`.
    pub shape: [usize; 2],
    /// Rank of the adapter, or of each slice.
    pub rank: usize,
    /// Scaling numerator α.
    pub alpha: f64,
    /// Factor that `A B` is multiplied by.
    pub scale: f64,
    /// Path of the adapter in the forward pass.
    pub path: AdapterPath,
    /// Adapted parts of a fused projection, `None` if all of the weight is adapted.
    pub slices: Option<Slices>,
    /// True if magnitude and direction are trained separately (DoRA).
    pub dora: bool,
    /// Path of the layer's bias, if the adapter adds a bias to it.
    pub bias: Option<String>,
    /// True if the factors start at a part of the weight (PiSSA, OLoRA), so that the update is `A B − A₀ B₀`.
    pub residual_init: bool,
}

impl AdaptedModule {
    /// Returns the rank of the equivalent standard adapter: the ranks of all slices together, twice with
    /// [`residual_init`](Self::residual_init).
    pub fn total_rank(&self) -> usize {
        let times = if self.residual_init { 2 } else { 1 };
        times * self.trained_rank()
    }

    /// Returns the number of trainable columns of `A`, and of rows of the equivalent standard adapter's `B`.
    pub(crate) fn trained_rank(&self) -> usize {
        self.rank * self.slices.as_ref().map_or(1, |s| s.adapted.len())
    }

    /// Returns the number of columns of each block of `B`: `d_out`, or the widths of the adapted parts.
    pub(crate) fn block_widths(&self) -> Vec<usize> {
        let d_out = self.shape[1];
        match &self.slices {
            None => vec![d_out],
            Some(slices) => slices.widths(d_out).collect(),
        }
    }

    /// Returns the shapes of `A` and `B` in the adapter.
    pub(crate) fn factor_shapes(&self) -> [[usize; 2]; 2] {
        let [d_in, d_out] = self.shape;
        let b = match &self.slices {
            None => [self.rank, d_out],
            Some(slices) => slices.blocks_shape(self.rank, d_out),
        };
        [[d_in, self.trained_rank()], b]
    }

    /// Returns the number of trainable parameters of the adapter.
    pub fn parameters(&self) -> usize {
        let factors: usize = self.factor_shapes().iter().map(|[m, n]| m * n).sum();
        let vectors = usize::from(self.dora) + usize::from(self.bias.is_some());
        factors + vectors * self.shape[1]
    }
}
