//! Merging adapters into their weights, and undoing that.

use crate::quantize::materialized;
use burn::module::Module;

/// A module with merged adapters, together with the original module.
///
/// The two share every tensor except the adapted weights, which take memory twice until one of them is dropped.
#[derive(Clone, Debug)]
pub struct Merged<M: Module> {
    merged: M,
    original: M,
}

/// Merges each adapter into its weight, `W + s A B` (Hu et al. 2021, section 4.1), so that it adds no latency.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::{nn::LinearConfig, tensor::Device};
/// use lora_core::{LoraConfig, attach, merge};
///
/// let linear = LinearConfig::new(8, 8).init(&Device::flex());
/// let linear = attach(linear, &LoraConfig::new(2))?.into_module();
/// let before = linear.weight.base().into_data();
///
/// let merged = merge(linear);
/// assert!(merged.module().weight.adapter().is_none());
///
/// let linear = merged.unmerge();
/// assert_eq!(linear.weight.base().into_data(), before);
/// # Ok::<(), lora_core::LoraError>(())
/// ```
pub fn merge<M: Module>(module: M) -> Merged<M> {
    Merged {
        merged: materialized(module.clone()),
        original: module,
    }
}

impl<M: Module> Merged<M> {
    /// Returns the merged module, without adapters.
    pub fn module(&self) -> &M {
        &self.merged
    }

    /// Returns the merged module, and drops the original weights.
    pub fn into_module(self) -> M {
        self.merged
    }

    /// Returns the original module with its adapters. The weights equal those before
    /// the merge bit for bit, since nothing is subtracted.
    pub fn unmerge(self) -> M {
        self.original
    }
}
