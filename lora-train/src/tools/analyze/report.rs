//! The report of `lora analyze`. `--json` prints these structs: keys keep their names and meanings, new ones may come. A number that
//! does not exist, such as a ratio to zero, is `null`.

use serde::Serialize;

/// Analysis of the updates of one adapter, or of two.
#[derive(Clone, Debug, Serialize)]
pub struct AnalysisReport {
    /// Directory or name of the base.
    pub model: String,
    /// Paths of the adapters, in the order of the command line.
    pub adapters: Vec<String>,
    /// Seed of the random controls.
    pub seed: u64,
    /// Matrices with an update in each adapter, in the order of the model.
    pub matrices: Vec<MatrixReport>,
    /// Matrices with an update in one of two adapters only.
    pub skipped: Vec<String>,
}

/// Numbers of a matrix.
#[derive(Clone, Debug, Serialize)]
pub struct MatrixReport {
    /// Name of the module, with the part of a fused projection in brackets: `transformer.h.0.attn.c_attn[q]`.
    pub matrix: String,
    /// Index of the layer, from 0; `null` outside layers.
    pub layer: Option<usize>,
    /// Shape of the weight and its update, `[d_out, d_in]`.
    pub shape: [usize; 2],
    /// Frobenius norm of the weight, `‖W‖`.
    pub weight_norm: f64,
    /// Updates, in the order of the adapters.
    pub updates: Vec<UpdateReport>,
    /// Subspaces that two adapters share; `null` for one adapter.
    pub similarity: Option<Similarity>,
}

/// Update of one adapter, against the weight.
#[derive(Clone, Debug, Serialize)]
pub struct UpdateReport {
    /// Rank of the factors.
    pub rank: usize,
    /// Frobenius norm, `‖ΔW‖`.
    pub norm: f64,
    /// Singular values of `ΔW` that are no rounding errors, in descending order.
    pub singular_values: Vec<f64>,
    /// `‖ΔW‖ / ‖UᵀWVᵀ‖` on all singular directions of `ΔW`, the paper's amplification factor.
    pub amplification: Option<f64>,
    /// Norms of the weight between the first 1, 2, 4, … and all directions.
    pub between: Vec<Between>,
    /// Directions of `ΔW` among those of `W`, figure 8 of the paper; `null` if one of them is zero.
    pub weight_similarity: Option<WeightOverlap>,
    /// True if the adapter also has magnitudes (DoRA), which are no part of the low-rank update.
    pub dora: bool,
}

/// Norms between the first singular directions, table 7 of the paper.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Between {
    /// Number of directions.
    pub directions: usize,
    /// `‖UᵀWVᵀ‖` for `U` and `V` of the update.
    pub update: f64,
    /// The same for those of the weight.
    pub weight: Option<f64>,
    /// The same for those of a random Gaussian matrix.
    pub random: f64,
    /// Norm of the update on these directions, over `update`: on all, the amplification factor.
    pub amplification: Option<f64>,
}

/// Similarity `φ(i, j)` of two adapters' directions: rows for the first `i` of one, columns for the first `j` of the other, with
/// `φ(1, 1)` first.
#[derive(Clone, Debug, Serialize)]
pub struct Similarity {
    /// Right-singular directions of `A`, as in the paper's figures 3, 4, 6 and 7; `null` if one of them is zero.
    pub a: Option<Vec<Vec<f64>>>,
    /// Left-singular directions of `B`; `null` if one of them is zero, as before training.
    pub b: Option<Vec<Vec<f64>>>,
    /// Random Gaussian matrices of the shapes of the two `A`.
    pub random: Option<Vec<Vec<f64>>>,
}

/// Similarity `φ(i, j)` of the weight's right-singular directions, the rows, and the update's, the columns.
#[derive(Clone, Debug, Serialize)]
pub struct WeightOverlap {
    /// Right-singular directions of `ΔW`.
    pub update: Vec<Vec<f64>>,
    /// Random Gaussian matrix of the shape of `A`.
    pub random: Vec<Vec<f64>>,
}
