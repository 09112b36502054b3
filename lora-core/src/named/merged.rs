//! One adapter of a set added to the weights, and another in its place.

use super::NamedAdapters;
use super::acting::Acting;
use crate::LoraError;
use burn::module::Module;

/// The base with one of its adapters added to the weights, `W + s A B`: no latency is left.
///
/// Another adapter's weights are made from the base's, `W + s' A' B'`, and not from the merged ones as the paper has it,
/// `(W + s A B) − s A B + s' A' B'`: what is added and subtracted in floating point does not come out where it began, and
/// drifts with every switch. So the adapted weights are there twice, the base's own and the merged; all others are
/// shared. The base is as it was at any time, bit for bit.
#[derive(Debug)]
pub struct MergedAdapters<'a, M: Module> {
    adapters: &'a NamedAdapters<M>,
    name: String,
    module: M,
}

impl<M: Module> NamedAdapters<M> {
    /// Adds an adapter to the weights, whatever is active.
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
        let acting = Acting::One(Some(self.get(name)?.key));
        let model = self.model().clone();
        Ok(self.handle().within(acting, || model.materialize()))
    }
}

impl<M: Module> MergedAdapters<'_, M> {
    /// The merged module: plain weights, no adapter.
    pub fn module(&self) -> &M {
        &self.module
    }

    /// The merged module, for good.
    pub fn into_module(self) -> M {
        self.module
    }

    /// The adapter that is in the weights.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Puts another adapter in the weights. The memory of the merged ones is given back first.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`]; the one before is then still in the weights.
    pub fn switch(&mut self, name: &str) -> Result<(), LoraError> {
        self.adapters.get(name)?;
        self.module = self.adapters.base().clone();
        self.module = self.adapters.composed(name)?;
        self.name = name.into();
        Ok(())
    }
}
