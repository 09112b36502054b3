//! What `lora diff` finds. The JSON of `--json` is that of these structs: keys keep their names and meanings, new ones
//! may come. Pairs are in the order of the command line; a number that is not finite is `null`.

use serde::Serialize;
use serde_json::Value;

/// How two adapters, or two models' weights, differ.
#[derive(Clone, Debug, Serialize)]
pub struct DiffReport {
    /// Whether there is no difference at all, or none above the tolerance in values.
    pub same: bool,
    /// What was compared.
    pub kind: DiffKind,
    /// Where they are.
    pub paths: [String; 2],
    /// Fields of the configuration that differ, and notes in the files.
    pub config: Vec<FieldDifference>,
    /// Modules with an adapter in one of them only.
    pub modules_only_in: [Vec<String>; 2],
    /// Modules with an adapter in both.
    pub modules: Vec<ModuleDifference>,
    /// Tensors in one of them only: of adapters those that trained whole, of models all.
    pub tensors_only_in: [Vec<String>; 2],
    /// Tensors in both.
    pub tensors: Vec<TensorDifference>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffKind {
    /// Two adapters.
    Adapters,
    /// The weights of two models, or two files of weights.
    Weights,
}

/// A field of the configuration.
#[derive(Clone, Debug, Serialize)]
pub struct FieldDifference {
    /// Its name.
    pub field: String,
    /// What each says.
    pub values: [Value; 2],
}

/// A module with an adapter in both.
#[derive(Clone, Debug, Serialize)]
pub struct ModuleDifference {
    /// Its path.
    pub module: String,
    /// Whether nothing differs, or nothing above the tolerance.
    pub same: bool,
    /// The ranks.
    pub ranks: [usize; 2],
    /// What each multiplies `B A` by.
    pub scales: [f64; 2],
    /// `d_out` and `d_in` of each.
    pub shapes: [[usize; 2]; 2],
    /// Frobenius norms of the updates; `null` here and below where the shapes differ.
    pub norms: Option<[f64; 2]>,
    /// The norm of the difference of the updates over that of the first.
    pub relative: Option<f64>,
    /// The cosine between the updates.
    pub cosine: Option<f64>,
    /// How much of the space that the rows of one `A` span lies in the other's, from 0 to 1: section 7.2 of the paper.
    pub subspace: Option<f64>,
    /// The largest difference of DoRA's magnitudes, where both have some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub magnitude: Option<f64>,
    /// The largest difference of the biases on `B`, where both have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<f64>,
    /// Parts that one of them has and the other has not: `magnitude`, `bias`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub one_sided: Vec<&'static str>,
}

/// A tensor in both.
#[derive(Clone, Debug, Serialize)]
pub struct TensorDifference {
    /// Its name.
    pub name: String,
    /// Whether it is the same, or within the tolerance.
    pub same: bool,
    /// The shapes.
    pub shapes: [Vec<usize>; 2],
    /// The element types, where the files have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtypes: Option<[&'static str; 2]>,
    /// The largest absolute difference of two values; `null` where the shapes differ, or the values are no floats.
    pub largest: Option<f64>,
    /// The norm of the difference over that of the first.
    pub relative: Option<f64>,
}
