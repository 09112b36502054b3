//! Modules of a model, and the targets of its adapters.

use crate::error::ModelError;
use burn::module::Module;
use burn::tensor::Device;
use lora_core::{Architecture, AttachReport, LoraConfig, TargetModules};

/// Weights over a vocabulary, in the layout of files, `[rows, d]`.
#[derive(Clone, Debug, Default)]
pub struct NewVocabulary {
    /// Number of rows.
    pub rows: usize,
    /// Values of the input embedding; `None` for the model's own, with rows added or left out.
    pub input: Option<Vec<f32>>,
    /// Values of the output layer, likewise; without effect on one that is tied to the embedding.
    pub output: Option<Vec<f32>>,
}

/// Sizes and values of a model's weights over its vocabulary.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// Number of rows.
    pub rows: usize,
    /// Size of a row.
    pub d: usize,
    /// True if the output layer is tied to the input embedding.
    pub tied: bool,
}

impl Vocabulary {
    /// Returns the number of rows that ids of tokens may extend the vocabulary to. Ids come from files, and rows are allocated for
    /// them: those far beyond the model's belong to another.
    pub fn most_rows(&self) -> usize {
        const ALWAYS: usize = 1 << 16;
        self.rows.saturating_mul(2).max(ALWAYS)
    }
}

/// Names of a model's modules, and the modules that adapters go on.
pub trait LoraTargets: Module {
    /// Returns the modules' names in transformers, the output layers, which `all-linear` leaves out, and the fused
    /// projections, which can be adapted by slices.
    fn lora_architecture(&self) -> Architecture;

    /// Returns PEFT's name of the model's task, such as `CAUSAL_LM`.
    fn task_type(&self) -> &'static str;

    /// Returns the device of the weights.
    fn device(&self) -> Device;

    /// Returns the modules that PEFT adapts by default.
    fn default_targets(&self) -> TargetModules;

    /// Names the modules that are fully trained beside every adapter (PEFT's `modules_to_save`): a new head, and what
    /// else the checkpoint lacks.
    fn modules_to_save(&self) -> Vec<String> {
        Vec::new()
    }

    /// Checks that an adapter brings all modules that were initialized at random.
    ///
    /// # Errors
    /// [`ModelError::StillRandom`] with the modules that it does not bring.
    fn check_adapter(&self, _report: &AttachReport) -> Result<(), ModelError> {
        Ok(())
    }

    /// Prepares the model for an adapter with this configuration: it creates the modules that the adapter needs and
    /// changes no output.
    ///
    /// # Errors
    /// If a weight cannot be read.
    fn prepare(self, _config: &LoraConfig) -> Result<Self, ModelError> {
        Ok(self)
    }

    /// Returns the sizes of the weights over the vocabulary; `None` for a model whose vocabulary cannot be changed.
    fn vocabulary(&self) -> Option<Vocabulary> {
        None
    }

    /// Returns the values of the input embedding, or else of the output layer, `[rows, d]`.
    ///
    /// # Errors
    /// If a weight cannot be read.
    fn vocabulary_values(&self, _input: bool) -> Result<Vec<f32>, ModelError> {
        Err(ModelError::missing("an embedding of tokens"))
    }

    /// Replaces the weights over the vocabulary, also by others of another size. It comes before adapters.
    ///
    /// # Errors
    /// If a weight cannot be read, or the device cannot bind it in one buffer.
    fn with_vocabulary(self, _new: NewVocabulary) -> Result<Self, ModelError> {
        Ok(self)
    }

    /// Returns name and contents of the files that are written beside an adapter.
    fn adapter_companions(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }
}
