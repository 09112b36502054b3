//! The adapters of a batch as one: what is made of them once and used at every step.

use burn::tensor::Tensor;
use std::collections::HashMap;

/// What adapters side by side are at each parameter, by the number of its set.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    pub weights: HashMap<usize, Factors>,
    pub biases: HashMap<usize, Tensor<2>>,
}

/// The adapters of one weight side by side.
#[derive(Clone, Debug)]
pub(super) struct Factors {
    /// `[d_in, R]` and `[R, d_out]`; `None` where none of them has any.
    pub low_rank: Option<[Tensor<2>; 2]>,
    /// Number of columns, and scale, of each adapter.
    pub columns: Vec<(usize, f64)>,
    /// DoRA's gain, a row for each adapter and one of ones for the base: `[adapters + 1, d_out]`.
    pub gains: Option<Tensor<2>>,
}
