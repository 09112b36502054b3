//! One adapter of a set merged into the weights, and replaced by another.

use super::adapters::NamedAdapters;
use crate::adapter::Selection;
use crate::error::LoraError;
use crate::quantize::materialized;
use burn::module::Module;

/// The base with one of its adapters merged into the weights, `W + s A B`, so that it adds no latency.
///
/// The weights of another adapter are computed from the base's, `W + s' A' B'`. The paper computes them from the merged ones,
/// `(W + s A B) − s A B + s' A' B'`, but in floating point these drift with every switch. So the adapted weights take memory
/// twice, as the base's and as merged ones; all others are shared. The base stays as it was, bit for bit.
#[derive(Debug)]
pub struct MergedAdapters<'a, M: Module> {
    adapters: &'a NamedAdapters<M>,
    name: String,
    module: M,
}

impl<M: Module> NamedAdapters<M> {
    /// Merges an adapter into the weights, whatever is active.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn merge(&self, name: &str) -> Result<MergedAdapters<'_, M>, LoraError> {
        Ok(MergedAdapters {
            adapters: self,
            name: name.into(),
            module: self.composed(name)?,
        })
    }

    fn composed(&self, name: &str) -> Result<M, LoraError> {
        let selection = Selection::One(Some(self.get(name)?.key));
        let model = self.model().clone();
        Ok(self.selected().within(selection, || materialized(model)))
    }
}

impl<M: Module> MergedAdapters<'_, M> {
    /// Returns the merged module, without adapters.
    pub fn module(&self) -> &M {
        &self.module
    }

    /// Returns the merged module.
    pub fn into_module(self) -> M {
        self.module
    }

    /// Returns the name of the merged adapter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replaces the merged adapter by another one. The memory of the merged weights is freed first.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`]; the merged adapter then stays.
    pub fn switch(&mut self, name: &str) -> Result<(), LoraError> {
        self.adapters.get(name)?;
        self.module = self.adapters.base().clone();
        self.module = self.adapters.composed(name)?;
        self.name = name.into();
        Ok(())
    }
}
