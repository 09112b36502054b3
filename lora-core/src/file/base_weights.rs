//! Weights of the base in an adapter file: [`BaseWeight`].

use super::adapter::StoredTensor;
use super::dir::AdapterDir;
use super::names::PREFIX;
use crate::error::LoraError;
use crate::layout::{Architecture, SavedParameter, is_inside};

/// A matrix over the vocabulary that an adapter file brings for the base.
///
/// PEFT writes input and output embeddings beside an adapter if the vocabulary was resized, if an adapter is on them, or if
/// asked (`save_embedding_layers`), and puts them in the place of the base's own when it loads the adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseWeight {
    /// Name of the module in the model.
    pub module: String,
    /// Name of the tensor in the file.
    pub tensor: String,
    /// Shape in the file, `[vocabulary, d]`.
    pub shape: Vec<usize>,
}

impl BaseWeight {
    /// Returns true for the value before training of a module that is fully trained.
    pub(crate) fn is_original(&self) -> bool {
        self.tensor.ends_with(".original_module.weight")
    }

    /// Returns the entry of an attach report, for a parameter that holds the weight.
    pub fn saved(&self, parameter: &str, transposed: bool) -> SavedParameter {
        let mut shape = self.shape.clone();
        if transposed {
            shape.reverse();
        }
        let name = self.tensor.strip_prefix(PREFIX).unwrap_or(&self.tensor);
        SavedParameter {
            parameter: parameter.into(),
            name: name.into(),
            shape,
            transposed,
        }
    }
}

impl AdapterDir {
    /// Returns the matrices over the vocabulary that the file brings for the base, in the order of
    /// [`Architecture::vocabulary`]; those of `modules_to_save` are not the base's.
    ///
    /// # Errors
    /// As [`config`](Self::config) and [`tensors`](Self::tensors).
    pub fn base_weights(&self, architecture: &Architecture) -> Result<Vec<BaseWeight>, LoraError> {
        let (config, file) = (self.config()?, self.tensors()?);
        let mut found = Vec::new();
        for (index, module) in architecture.vocabulary.iter().enumerate() {
            let weight = format!("{module}.weight");
            let mut to_save = config.modules_to_save.iter();
            // The output layer that is tied to a trained embedding has no weight of its own.
            let is_tied = index > 0 && config.ensure_weight_tying;
            let is_saved = !is_tied && to_save.any(|entry| is_inside(&weight, entry));
            // No wrapper, and those of adapters, of `modules_to_save` and of trained tokens. Of a tied pair that is trained, the
            // original is used nowhere.
            let original = !config.ensure_weight_tying || !is_saved;
            let inside = [
                (!is_saved).then_some(""),
                Some("base_layer."),
                original.then_some("original_module."),
                Some("token_adapter.base_layer."),
            ];
            let names = inside.into_iter().flatten();
            let mut names = names.map(|inside| format!("{PREFIX}{module}.{inside}weight"));
            found.extend(names.find_map(|tensor| {
                let shape = file.shape(&tensor)?.to_vec();
                Some(BaseWeight {
                    module: module.clone(),
                    tensor,
                    shape,
                })
            }));
        }
        Ok(found)
    }

    /// Returns the largest id of the tokens that the adapter trains.
    ///
    /// # Errors
    /// As [`config`](Self::config).
    pub fn largest_token(&self) -> Result<Option<usize>, LoraError> {
        let tokens = self.config()?.token_indices.iter();
        Ok(tokens.flat_map(|tokens| tokens.ids.iter().copied()).max())
    }

    /// Reads a tensor of the file.
    ///
    /// # Errors
    /// As [`AdapterTensors::read`](super::AdapterTensors::read).
    pub fn read_weight(&self, weight: &BaseWeight) -> Result<StoredTensor, LoraError> {
        self.tensors()?.read(&weight.tensor)
    }
}
