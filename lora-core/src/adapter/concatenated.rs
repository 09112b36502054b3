//! The concatenated adapters of a batch, computed once and used at every step of a generation.

use burn::tensor::Tensor;
use std::collections::HashMap;

/// Concatenated adapters of each parameter, by the id of its set.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    pub weights: HashMap<usize, Concatenated>,
    pub biases: HashMap<usize, Tensor<2>>,
}

/// The concatenated adapters of one weight.
#[derive(Clone, Debug)]
pub(super) struct Concatenated {
    /// Factors `[d_in, R]` and `[R, d_out]`, with R the sum of the ranks; `None` if no adapter has factors.
    pub low_rank: Option<[Tensor<2>; 2]>,
    /// Rank and scale of each adapter.
    pub columns: Vec<(usize, f64)>,
    /// Gains of DoRA, `[adapters + 1, d_out]`: a row for each adapter, and one of ones for the base.
    pub gains: Option<Tensor<2>>,
}
