//! Models that take modules beside their weights.

use super::Added;
use crate::adapter_layers::{self, AdapterLayersConfig, LayerNames};
use crate::error::ModelError;
use crate::prefix::{self, Prefix, PrefixConfig, PrefixKind, PrefixShape};
use crate::targets::LoraTargets;
use crate::weights::on_host;
use burn::tensor::{Int, Tensor, TensorData};
use lora_core::LoraError;
use lora_core::file::{AdapterDir, AdapterKind};
use lora_core::files::Overwrite;
use std::collections::BTreeMap;
use std::path::Path;

/// A model that may have a [prefix](crate::prefix) and [adapter layers](crate::adapter_layers).
pub trait AddedModel: LoraTargets {
    /// Returns the modules beside the weights.
    fn added(&self) -> &Added;

    /// Returns the modules beside the weights for changes.
    fn added_mut(&mut self) -> &mut Added;

    /// Returns the sizes that these modules depend on.
    fn added_shape(&self) -> PrefixShape;

    /// Returns the names that the library `adapters` has for the layers.
    fn layer_names(&self) -> LayerNames;

    /// Returns the name of the model's class in transformers.
    fn model_class(&self) -> String;

    /// Returns the names of the head's outputs; empty for a language model.
    fn output_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Looks up the embeddings of tokens, without positions.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - returns `[batch, seq, d_embedding]`
    fn token_embeddings(&self, ids: Tensor<2, Int>) -> Tensor<3>;

    /// Returns the prefix.
    fn prefix(&self) -> Option<&Prefix> {
        self.added().prefix.as_ref()
    }

    /// Adds a trainable prefix, or replaces the present one. The weights stay as they are:
    /// [`attach`](crate::LoraModel::attach) or [`lora_core::freeze`] freezes them.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] inside [`ModelError::Lora`] if the model has no room for its number of tokens, or no embeddings
    /// of its own width.
    fn with_prefix(mut self, config: &PrefixConfig) -> Result<Self, ModelError> {
        let (device, shape) = (self.device(), self.added_shape());
        check_width(&self, config.kind)?;
        let prefix = if config.start.is_empty() {
            config.init(&shape, &device)?
        } else {
            let ids = config.start.iter().cycle().take(config.tokens);
            let ids: Vec<i64> = ids.map(|&id| i64::from(id)).collect();
            let ids = TensorData::new(ids, [1, config.tokens]);
            let rows = self.token_embeddings(Tensor::from_data(ids, &device));
            let values = on_host("token embedding", rows)?;
            config.init_with(values, &shape, &device)?
        };
        self.added_mut().prefix = Some(prefix);
        Ok(self)
    }

    /// Loads the prefix of an opened PEFT directory, ready to be trained further; it replaces the present one.
    ///
    /// # Errors
    /// If a file cannot be read or is malformed, a key is not supported, the prefix belongs to another model, or its tensor is
    /// missing, misshapen or not finite.
    fn load_prefix(mut self, adapter: &AdapterDir) -> Result<Self, ModelError> {
        if let Some(kind) = PrefixKind::of(adapter.kind()) {
            check_width(&self, kind)?;
        }
        let prefix = prefix::read(adapter, &self.added_shape(), &self.device())?;
        self.added_mut().prefix = Some(prefix);
        Ok(self)
    }

    /// Removes and returns the prefix.
    fn take_prefix(&mut self) -> Option<Prefix> {
        self.added_mut().prefix.take()
    }

    /// Writes the prefix as a PEFT directory.
    ///
    /// # Errors
    /// [`ModelError::Export`] for a model without a prefix; [`LoraError::AlreadyExists`] or [`LoraError::Io`] inside
    /// [`ModelError::Lora`].
    fn save_prefix(
        &self,
        dir: impl AsRef<Path>,
        base_model: Option<&str>,
        overwrite: Overwrite,
    ) -> Result<(), ModelError> {
        let (dir, head) = (dir.as_ref(), BTreeMap::new());
        let missing = || ModelError::export(dir, "the model has no prefix");
        let prefix = self.prefix().ok_or_else(missing)?;
        prefix::save(prefix, &head, dir, self.task_type(), base_model, overwrite)
    }

    /// Adds trainable adapter layers, or replaces the present ones. The weights stay as they are, as with
    /// [`with_prefix`](Self::with_prefix).
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] inside [`ModelError::Lora`] for an option out of its range.
    fn with_adapter_layers(mut self, config: &AdapterLayersConfig) -> Result<Self, ModelError> {
        let layers = config.init(&self.added_shape(), &self.device())?;
        self.added_mut().adapters = Some(layers);
        Ok(self)
    }

    /// Loads the adapter layers of an opened directory of the library `adapters`, ready to be trained further; they replace the
    /// present ones.
    ///
    /// # Errors
    /// If a file cannot be read or is malformed, a key is not supported, the layers belong to another model, or a tensor is
    /// missing, left over, misshapen or not finite.
    fn load_adapter_layers(mut self, adapter: &AdapterDir) -> Result<Self, ModelError> {
        let (shape, names) = (self.added_shape(), self.layer_names());
        let layers = adapter_layers::read(adapter, &shape, &names, &self.device())?;
        self.added_mut().adapters = Some(layers);
        Ok(self)
    }

    /// Loads what an opened directory of virtual tokens or adapter layers has, beside a head.
    ///
    /// # Errors
    /// As [`load_prefix`](Self::load_prefix) and [`load_adapter_layers`](Self::load_adapter_layers).
    fn load_added(self, adapter: &AdapterDir) -> Result<Self, ModelError> {
        match adapter.kind() {
            AdapterKind::Layers => self.load_adapter_layers(adapter),
            _ => self.load_prefix(adapter),
        }
    }

    /// Removes and returns all modules beside the weights.
    fn take_added(&mut self) -> Added {
        std::mem::replace(self.added_mut(), Added::none())
    }
}

/// Refuses virtual tokens by their embeddings where those have another width than the model.
fn check_width<M: AddedModel>(model: &M, kind: PrefixKind) -> Result<(), ModelError> {
    let (d, own) = (model.added_shape().d_model, model.vocabulary());
    match own {
        Some(own) if own.d != d && kind == PrefixKind::Embeddings => {
            let error = LoraError::InvalidOption {
                option: "method",
                found: "prompt".into(),
                expected: format!(
                    "a method without embeddings of its own, such as prefix: the model's have {} values, and its layers {d}",
                    own.d
                ),
            };
            Err(error.into())
        }
        _ => Ok(()),
    }
}
