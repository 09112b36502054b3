//! The report of `lora diff`. `--json` prints these structs: keys keep their names and meanings, new ones may come.
//! Pairs are in the order of the command line; a number that is not finite is `null`.

use serde::Serialize;
use serde_json::Value;

/// Differences between two adapters, or between two models' weights.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DiffReport {
    /// True if there is no difference, or none above the tolerance in values.
    pub same: bool,
    /// Kind of what was compared.
    pub kind: DiffKind,
    /// Paths of the two.
    pub paths: [String; 2],
    /// Fields of the configuration that differ, and notes in the files.
    pub config: Vec<FieldDifference>,
    /// Modules with an adapter in one of them only.
    pub modules_only_in: [Vec<String>; 2],
    /// Modules with an adapter in both.
    pub modules: Vec<ModuleDifference>,
    /// Tensors in one of them only: the fully trained ones of adapters, all of models.
    pub tensors_only_in: [Vec<String>; 2],
    /// Tensors in both.
    pub tensors: Vec<TensorDifference>,
}

/// Kind of what is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffKind {
    /// Adapters.
    #[default]
    Adapters,
    /// Weights of two models, or two files of weights.
    Weights,
}

/// Field of the configuration.
#[derive(Clone, Debug, Serialize)]
pub struct FieldDifference {
    /// Name.
    pub field: String,
    /// Value of each.
    pub values: [Value; 2],
}

/// Module with an adapter in both.
#[derive(Clone, Debug, Serialize)]
pub struct ModuleDifference {
    /// Path.
    pub module: String,
    /// True if nothing differs, or nothing above the tolerance.
    pub same: bool,
    /// Ranks.
    pub ranks: [usize; 2],
    /// Factors that each multiplies `B A` by.
    pub scales: [f64; 2],
    /// Shapes of the updates, `[d_out, d_in]`.
    pub shapes: [[usize; 2]; 2],
    /// Frobenius norms of the updates; `null` here and below where the shapes differ.
    pub norms: Option<[f64; 2]>,
    /// Norm of the difference of the updates over that of the first.
    pub relative: Option<f64>,
    /// Cosine between the updates.
    pub cosine: Option<f64>,
    /// Similarity of the spaces that the rows of each `A` span, from 0 to 1: section 7.2 of the paper.
    pub subspace: Option<f64>,
    /// Largest difference of DoRA's magnitudes, if both have some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub magnitude: Option<f64>,
    /// Largest difference of the biases on `B`, if both have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<f64>,
    /// Parts that one of them has and the other has not: `magnitude`, `bias`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub one_sided: Vec<&'static str>,
}

/// Tensor in both.
#[derive(Clone, Debug, Serialize)]
pub struct TensorDifference {
    /// Name.
    pub name: String,
    /// True if it is the same, or within the tolerance.
    pub same: bool,
    /// Shapes.
    pub shapes: [Vec<usize>; 2],
    /// Element types, if the files have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtypes: Option<[String; 2]>,
    /// Largest absolute difference of two values; `null` if the shapes differ, or the values are no floats.
    pub largest: Option<f64>,
    /// Norm of the difference over that of the first.
    pub relative: Option<f64>,
}
