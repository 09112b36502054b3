//! Adding adapters to their weights for good, and taking that back.

use burn::module::Module;

/// A module whose adapters were added to their weights, and what is needed to take that back.
///
/// It holds the unmerged module beside the merged one. The two share every tensor but the adapted
/// weights, which are there twice until one of them is dropped.
#[derive(Clone, Debug)]
pub struct Merged<M: Module> {
    merged: M,
    original: M,
}

/// Adds each adapter to its weight, `W + s A B` (Hu et al. 2021, section 4.1): no latency is left.
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
        merged: module.clone().materialize(),
        original: module,
    }
}

impl<M: Module> Merged<M> {
    /// The merged module: plain weights, no adapter.
    pub fn module(&self) -> &M {
        &self.merged
    }

    /// The merged module, for good: the unmerged weights are dropped.
    pub fn into_module(self) -> M {
        self.merged
    }

    /// The module with its adapters beside the weights again. The weights are the ones from before
    /// the merge, bit for bit: nothing is subtracted.
    pub fn unmerge(self) -> M {
        self.original
    }
}
