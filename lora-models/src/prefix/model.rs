//! Models that take a prefix.

use super::{Prefix, PrefixConfig, PrefixShape, read, refused, save};
use crate::error::ModelError;
use crate::targets::LoraTargets;
use lora_core::LoraError;
use lora_core::file::AdapterDir;
use lora_core::files::Overwrite;
use std::path::Path;

const WITHOUT_SUPPORT: &str = "only GPT-2 takes a prefix, the encoders do not";

/// A model that may have a [prefix](crate::prefix). A model without support keeps the defaults and refuses one.
pub trait PrefixModel: LoraTargets {
    /// Returns the field of the prefix and the shape that the model requires; `None` without support.
    fn prefix_slot(&mut self) -> Option<(&mut Option<Prefix>, PrefixShape)> {
        None
    }

    /// Returns the prefix.
    fn prefix(&self) -> Option<&Prefix> {
        None
    }

    /// Adds a trainable prefix, or replaces the present one. The weights stay as they are:
    /// [`attach`](crate::LoraModel::attach) or [`lora_core::freeze`] freezes them.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] inside [`ModelError::Lora`] if the model has no support for a prefix, or no room for
    /// its number of tokens.
    fn with_prefix(mut self, config: &PrefixConfig) -> Result<Self, ModelError> {
        let device = self.device();
        let Some((slot, shape)) = self.prefix_slot() else {
            let error = LoraError::InvalidOption {
                option: "prefix",
                found: config.tokens.to_string(),
                expected: format!("none: {WITHOUT_SUPPORT}"),
            };
            return Err(error.into());
        };
        *slot = Some(config.init(&shape, &device)?);
        Ok(self)
    }

    /// Loads the prefix of an opened PEFT directory, ready to be trained further; it replaces the present one.
    ///
    /// # Errors
    /// If the model has no support for a prefix, a file cannot be read or is malformed, a key is not supported, the
    /// prefix belongs to another model, or its tensor is missing, misshapen or not finite.
    fn load_prefix(mut self, adapter: &AdapterDir) -> Result<Self, ModelError> {
        let device = self.device();
        let Some((slot, shape)) = self.prefix_slot() else {
            return Err(refused(adapter.path(), WITHOUT_SUPPORT));
        };
        *slot = Some(read(adapter, &shape, &device)?);
        Ok(self)
    }

    /// Removes and returns the prefix.
    fn take_prefix(&mut self) -> Option<Prefix> {
        self.prefix_slot()?.0.take()
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
        let dir = dir.as_ref();
        let missing = || ModelError::export(dir, "the model has no prefix");
        let prefix = self.prefix().ok_or_else(missing)?;
        save(prefix, dir, self.task_type(), base_model, overwrite)
    }
}
