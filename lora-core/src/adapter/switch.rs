//! Disabling adapters for a while: [`AdapterSwitch`].

use crate::bare::is_bare;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Enables and disables the adapters of one attach. Clones act on the same adapters.
#[derive(Clone, Debug)]
pub struct AdapterSwitch(Arc<AtomicBool>);

impl AdapterSwitch {
    /// Creates a switch with enabled adapters.
    pub(crate) fn on() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Returns true if the adapters take part in the forward pass.
    pub fn is_enabled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Enables or disables the adapters, also in all clones of the module. Without them the base model computes at its own
    /// cost.
    pub fn set_enabled(&self, enabled: bool) {
        self.0.store(enabled, Ordering::Relaxed);
    }

    /// Returns true if the adapters are enabled, and not bypassed on this thread.
    pub(crate) fn is_active(&self) -> bool {
        self.is_enabled() && !is_bare()
    }
}
