//! A module together with the report of its adapters.

use super::detach::detach;
use super::merge::{Merged, merge};
use super::report::AttachReport;
use super::trainable::{TrainableSummary, trainable_summary};
use burn::module::Module;

/// A module with LoRA adapters, and the report of how they were attached.
///
/// [`attach`](crate::attach()), [`freeze`](crate::freeze) and [`file::load`](crate::file::load()) return one. The report holds
/// the configuration, so that saving, merging and inspecting the adapters need nothing else.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::{nn::LinearConfig, tensor::Device};
/// use lora_core::files::Overwrite;
/// use lora_core::{LoraConfig, attach, file};
///
/// let linear = LinearConfig::new(8, 6).init(&Device::flex());
/// let adapted = attach(linear.clone(), &LoraConfig::new(2))?;
/// assert_eq!(adapted.report().parameters(), 8 * 2 + 2 * 6);
/// assert_eq!(adapted.trainable_summary().trainable, 8 * 2 + 2 * 6);
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("adapter");
/// adapted.save(&dir, &file::PeftOptions::default(), Overwrite::Refuse)?;
/// let again = file::load(linear, &dir, &Default::default())?;
/// let merged = again.merge().into_module();
/// assert!(merged.weight.adapter().is_none());
/// # Ok::<(), lora_core::LoraError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adapted<M> {
    module: M,
    report: AttachReport,
}

impl<M> Adapted<M> {
    /// Joins a module and the report of its adapters.
    pub fn from_parts(module: M, report: AttachReport) -> Self {
        Self { module, report }
    }

    /// Returns the module.
    pub fn module(&self) -> &M {
        &self.module
    }

    /// Returns the module for changes.
    pub fn module_mut(&mut self) -> &mut M {
        &mut self.module
    }

    /// Returns the report.
    pub fn report(&self) -> &AttachReport {
        &self.report
    }

    /// Returns the module with its adapters, and drops the report.
    pub fn into_module(self) -> M {
        self.module
    }

    /// Returns module and report.
    pub fn into_parts(self) -> (M, AttachReport) {
        (self.module, self.report)
    }

    /// Replaces the module by what `change` makes of it, such as a wrapper or a clone on another device.
    pub fn map<N>(self, change: impl FnOnce(M) -> N) -> Adapted<N> {
        Adapted::from_parts(change(self.module), self.report)
    }

    /// Replaces the module by what `change` makes of it.
    ///
    /// # Errors
    /// The error of `change`.
    pub fn try_map<N, E>(self, change: impl FnOnce(M) -> Result<N, E>) -> Result<Adapted<N>, E> {
        Ok(Adapted::from_parts(change(self.module)?, self.report))
    }
}

impl<M: Module> Adapted<M> {
    /// Adds each adapter to its weight; see [`merge`](crate::merge()).
    pub fn merge(self) -> Merged<M> {
        merge(self.module)
    }

    /// Takes the adapters off; see [`detach`](crate::detach).
    pub fn detach(self) -> M {
        detach(self.module)
    }

    /// Counts the trainable and the frozen parameters of the module.
    pub fn trainable_summary(&self) -> TrainableSummary {
        trainable_summary(&self.module)
    }
}
