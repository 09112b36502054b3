//! What `lora inspect` finds. The JSON of `--json` is that of these structs: keys keep their names and meanings, new
//! ones may come. A number that is not finite is `null` there.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What lies at a path.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Report {
    /// An adapter.
    Adapter(Box<AdapterReport>),
    /// A directory with adapters in directories of their own, and none at its top.
    Adapters(TreeReport),
    /// A directory of a model.
    Model(Box<ModelReport>),
    /// A file of weights.
    Weights(WeightsReport),
}

/// Something that should not be, or that a reader should know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unusual {
    /// What it is, in a word that does not change.
    pub kind: &'static str,
    /// The module, tensor or entry that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    pub message: String,
}

/// An adapter.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AdapterReport {
    /// Where it is.
    pub path: String,
    /// `peft`, `loralib` or `mlx`.
    pub format: &'static str,
    /// PEFT's word for its kind, such as `LORA` or `PREFIX_TUNING`.
    pub peft_type: Option<String>,
    /// What its configuration says of low-rank factors, as far as it could be understood.
    pub settings: Option<Settings>,
    /// All of its configuration, as it is in the file.
    pub config: Map<String, Value>,
    /// The adapted modules, by name.
    pub modules: Vec<ModuleReport>,
    /// Tensors that are no factors: what trained whole, and what belongs to nothing.
    pub saved: Vec<SavedReport>,
    /// Values in the factors, magnitudes and biases.
    pub parameters: u64,
    /// Values in the other tensors.
    pub saved_parameters: u64,
    /// Length of the file of tensors in bytes.
    pub file_bytes: u64,
    /// Tensors by element type.
    pub dtypes: BTreeMap<&'static str, DtypeReport>,
    /// What a head says, where the adapter keeps that: the names of its classes, or `score`.
    pub labels: Option<Vec<String>>,
    /// What the file notes beside its tensors.
    pub metadata: BTreeMap<String, String>,
    /// Further adapters in directories below.
    pub adapters: Vec<String>,
    /// What is unusual.
    pub unusual: Vec<Unusual>,
}

/// What a configuration says of low-rank factors.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Settings {
    /// Rank r.
    pub rank: Option<usize>,
    /// Scaling numerator α.
    pub alpha: Option<f64>,
    /// `standard`, `rank_stabilized`, or `as_is` where the file gives the scale and no alpha.
    pub scaling: &'static str,
    /// What `B A` is multiplied by, where no pattern says otherwise.
    pub scale: Option<f64>,
    /// Probability of dropping an input while training.
    pub dropout: f64,
    /// How the factors started.
    pub init: Value,
    /// Whether magnitudes and directions trained apart.
    pub dora: bool,
    /// Whether `B` has a bias.
    pub lora_bias: bool,
    /// Which biases of the base trained: `none`, `all` or `lora_only`.
    pub bias: Value,
    /// The target modules: names, or a regular expression.
    pub targets: Value,
    /// Targets that were left alone.
    pub exclude: Value,
    /// Indices of the layers that were adapted, where not all were.
    pub layers: Option<Vec<usize>>,
    /// Other ranks, by pattern.
    pub rank_pattern: Map<String, Value>,
    /// Other alphas, by pattern.
    pub alpha_pattern: Map<String, Value>,
    /// Modules that trained whole.
    pub modules_to_save: Vec<String>,
    /// PEFT's task.
    pub task_type: Option<String>,
    /// Name or path of the base model.
    pub base_model: Option<String>,
}

/// The adapter of one module.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ModuleReport {
    /// The module's path.
    pub module: String,
    /// `linear` or `embedding`.
    pub kind: &'static str,
    /// Rank of the update; in a fused projection of loralib of each part.
    pub rank: Option<usize>,
    /// `d_out` and `d_in` of the update.
    pub shape: Option<[usize; 2]>,
    /// How many parts of a fused projection are adapted (loralib).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<usize>,
    /// What `B A` is multiplied by; `null` where nobody knows, and `norm_update` is then that of `B A`.
    pub scale: Option<f64>,
    /// Values of it.
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

/// A tensor beside the factors.
#[derive(Clone, Debug, Serialize)]
pub struct SavedReport {
    /// Its name, without PEFT's prefix.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its Frobenius norm; `null` of integers, which are not read.
    pub norm: Option<f64>,
}

/// Tensors of one element type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DtypeReport {
    /// How many.
    pub tensors: u64,
    /// Values in them.
    pub parameters: u64,
    /// Bytes that they take in the file.
    pub bytes: u64,
}

/// Adapters in the directories of a directory.
#[derive(Clone, Debug, Serialize)]
pub struct TreeReport {
    /// Where it is.
    pub path: String,
    /// The names of the directories.
    pub adapters: Vec<String>,
}

/// A model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// Its `model_type`.
    pub model_type: Option<String>,
    /// Number of layers.
    pub layers: Option<usize>,
    /// Width of the hidden states.
    pub width: Option<usize>,
    /// Number of attention heads.
    pub heads: Option<usize>,
    /// Number of tokens of the vocabulary.
    pub vocabulary: Option<usize>,
    /// The most tokens in an input.
    pub max_length: Option<usize>,
    /// Whether the head of a language model is its embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tied_head: Option<bool>,
    /// What its head says: the names of classes, or `score`.
    pub labels: Option<Vec<String>>,
    /// Names that `--targets` can have.
    pub targets: Vec<&'static str>,
    /// Its weights.
    #[serde(flatten)]
    pub weights: WeightsReport,
}

/// Weights, without a word on what model they are of.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WeightsReport {
    /// Where they are.
    pub path: String,
    /// `safetensors`, `PyTorch pickle`, or shards of either.
    pub source: Option<String>,
    /// The files.
    pub files: Vec<String>,
    /// Length of the files together, in bytes.
    pub file_bytes: u64,
    /// Values in all tensors.
    pub parameters: u64,
    /// Tensors by element type.
    pub dtypes: BTreeMap<&'static str, DtypeReport>,
    /// The tensors, by name.
    pub tensors: Vec<TensorReport>,
    /// What safetensors files note beside their tensors.
    pub metadata: BTreeMap<String, String>,
    /// Whether the values were read: without, nothing is known of them.
    pub values_read: bool,
    /// What is unusual.
    pub unusual: Vec<Unusual>,
}

/// A tensor of a file.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its Frobenius norm, where values were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<f64>,
}

impl Unusual {
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            name: None,
            message: message.into(),
        }
    }

    pub(super) fn of(
        kind: &'static str,
        name: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            name: Some(name.into()),
            message: message.into(),
        }
    }
}
