//! The report of `lora inspect`. `--json` prints these structs: keys keep their names and meanings, new
//! ones may come. A number that is not finite is `null` there.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Description of a path.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Report {
    /// An adapter.
    Adapter(Box<AdapterReport>),
    /// Directory with adapters in directories of their own, and none at its top.
    Adapters(TreeReport),
    /// Directory of a model.
    Model(Box<ModelReport>),
    /// File of weights.
    Weights(WeightsReport),
}

/// Something that should not be there, or that a reader should know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unusual {
    /// Kind, a word that does not change.
    pub kind: &'static str,
    /// Module, tensor or entry that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Message for people.
    pub message: String,
}

/// An adapter.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AdapterReport {
    /// Path of the directory or file.
    pub path: String,
    /// Format: `peft`, `loralib` or `mlx`.
    pub format: &'static str,
    /// PEFT's name of its kind, such as `LORA` or `PREFIX_TUNING`.
    pub peft_type: Option<String>,
    /// Settings of low-rank factors, as far as the configuration could be interpreted.
    pub settings: Option<Map<String, Value>>,
    /// All keys of its configuration, as they are in the file.
    pub config: Map<String, Value>,
    /// Adapted modules, by name.
    pub modules: Vec<ModuleReport>,
    /// Tensors that are no factors: fully trained parameters, and tensors that belong to nothing.
    pub saved: Vec<TensorReport>,
    /// Number of values in the factors, magnitudes and biases.
    pub parameters: u64,
    /// Number of values in the other tensors.
    pub saved_parameters: u64,
    /// Length of the file of tensors in bytes.
    pub file_bytes: u64,
    /// Tensors by element type.
    pub dtypes: BTreeMap<String, DtypeReport>,
    /// Labels of a head, if the adapter keeps them: names of classes, or `score`.
    pub labels: Option<Vec<String>>,
    /// Notes of the file beside its tensors.
    pub metadata: BTreeMap<String, String>,
    /// Further adapters in directories below.
    pub adapters: Vec<String>,
    /// Unusual findings.
    pub unusual: Findings,
}

/// The adapter of one module.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModuleReport {
    /// Path of the module.
    pub module: String,
    /// Kind of layer: `linear` or `embedding`.
    pub kind: &'static str,
    /// Rank of the update; in a fused projection of loralib of each part.
    pub rank: Option<usize>,
    /// Shape of the update, `[d_out, d_in]`.
    pub shape: Option<[usize; 2]>,
    /// Number of adapted parts of a fused projection (loralib).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<usize>,
    /// Factor that `B A` is multiplied by; `null` if it is unknown, and `norm_update` is then that of `B A`.
    pub scale: Option<f64>,
    /// Number of values.
    pub parameters: u64,
    /// Frobenius norm of `A`.
    pub norm_a: Option<f64>,
    /// Frobenius norm of `B`.
    pub norm_b: Option<f64>,
    /// Frobenius norm of the update, `scale · B A`.
    pub norm_update: Option<f64>,
    /// Norm of DoRA's magnitudes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_magnitude: Option<f64>,
    /// Norm of the bias on `B`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_bias: Option<f64>,
}

/// Tensors of one element type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DtypeReport {
    /// Number of tensors.
    pub tensors: u64,
    /// Number of values in them.
    pub parameters: u64,
    /// Size in the file, in bytes.
    pub bytes: u64,
}

/// Adapters in the directories of a directory.
#[derive(Clone, Debug, Serialize)]
pub struct TreeReport {
    /// Path of the directory.
    pub path: String,
    /// Names of the directories.
    pub adapters: Vec<String>,
}

/// A model.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModelReport {
    /// The configuration's `model_type`.
    pub model_type: Option<String>,
    /// Number of layers.
    pub layers: Option<usize>,
    /// Width of the hidden states.
    pub width: Option<usize>,
    /// Number of attention heads.
    pub heads: Option<usize>,
    /// Number of tokens of the vocabulary.
    pub vocabulary: Option<usize>,
    /// Largest number of tokens in an input.
    pub max_length: Option<usize>,
    /// True if the head of a language model is its embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tied_head: Option<bool>,
    /// Labels of its head: names of classes, or `score`.
    pub labels: Option<Vec<String>>,
    /// Names that `--targets` can have.
    pub targets: Vec<&'static str>,
    /// Weights.
    #[serde(flatten)]
    pub weights: WeightsReport,
}

/// Weights, without the model that they belong to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WeightsReport {
    /// Path of the directory or file.
    pub path: String,
    /// Kind of files: `safetensors`, `PyTorch pickle`, or shards of either.
    pub source: Option<String>,
    /// Paths of the files.
    pub files: Vec<String>,
    /// Length of the files together, in bytes.
    pub file_bytes: u64,
    /// Number of values in all tensors.
    pub parameters: u64,
    /// Tensors by element type.
    pub dtypes: BTreeMap<String, DtypeReport>,
    /// Tensors, by name.
    pub tensors: Vec<TensorReport>,
    /// Notes of safetensors files beside their tensors.
    pub metadata: BTreeMap<String, String>,
    /// True if the values were read.
    pub values_read: bool,
    /// Unusual findings.
    pub unusual: Findings,
}

/// A tensor of a file.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Name; in an adapter without PEFT's prefix.
    pub name: String,
    /// Element type.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Frobenius norm; `null` if the values were not read, as those of integers never are.
    pub norm: Option<f64>,
}

/// Unusual findings, in the order of their discovery.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Findings(pub Vec<Unusual>);

impl Findings {
    /// Adds a finding.
    pub(super) fn add(&mut self, kind: &'static str, message: impl ToString) {
        self.0.push(Unusual {
            kind,
            name: None,
            message: message.to_string(),
        });
    }

    /// Adds a finding about a module, tensor or entry.
    pub(super) fn add_on(&mut self, kind: &'static str, name: &str, message: impl ToString) {
        self.0.push(Unusual {
            kind,
            name: Some(name.into()),
            message: message.to_string(),
        });
    }
}
