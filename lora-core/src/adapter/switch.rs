//! Turning adapters off: for good by taking them away, or for a while.

use crate::bare::is_bare;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Turns the adapters of one attach on and off. Clones act on the same adapters.
#[derive(Clone, Debug)]
pub struct AdapterSwitch(Arc<AtomicBool>);

impl AdapterSwitch {
    pub(crate) fn on() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Whether the adapters take part in the forward pass.
    pub fn is_enabled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes the adapters take part in the forward pass, or not: the base model answers then, at
    /// no cost. Every clone of the module follows.
    pub fn set_enabled(&self, enabled: bool) {
        self.0.store(enabled, Ordering::Relaxed);
    }

    /// Whether an adapter takes part here and now: it is on, and not being taken off.
    pub(crate) fn is_active(&self) -> bool {
        self.is_enabled() && !is_bare()
    }
}
