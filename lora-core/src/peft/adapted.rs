//! Saving an [`Adapted`] module.

use super::PeftOptions;
use super::write::{extract, save};
use crate::attach::Adapted;
use crate::error::LoraError;
use crate::files::Overwrite;
use crate::stored::StoredAdapter;
use burn::module::Module;
use std::path::Path;

impl<M: Module> Adapted<M> {
    /// Writes the adapters as a PEFT directory, atomically.
    ///
    /// # Errors
    /// [`LoraError::AlreadyExists`] if the directory exists and may not be replaced, or [`LoraError::Io`].
    /// [`LoraError::NotAttached`] if the module was replaced by one without these adapters.
    pub fn save(
        &self,
        dir: &Path,
        options: &PeftOptions,
        overwrite: Overwrite,
    ) -> Result<(), LoraError> {
        save(self.module(), self.report(), dir, options, overwrite)
    }

    /// Returns the adapters in the form that files hold.
    ///
    /// # Errors
    /// [`LoraError::NotAttached`] if the module was replaced by one without these adapters.
    pub fn extract(&self, options: &PeftOptions) -> Result<StoredAdapter, LoraError> {
        extract(self.module(), self.report(), options)
    }
}
