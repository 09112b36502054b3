//! Modules of a model, and the targets of its adapters.

use crate::error::ModelError;
use burn::module::Module;
use burn::tensor::Device;
use lora_core::{Architecture, AttachReport, LoraConfig, TargetModules};

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

    /// Returns name and contents of the files that are written beside an adapter.
    fn adapter_companions(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }
}
