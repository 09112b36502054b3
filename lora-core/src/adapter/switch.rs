//! Turning adapters off: for good by taking them away, or for a while.

use std::cell::Cell;
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
        self.is_enabled() && !are_taken_off()
    }
}

/// Whether adapters are being taken off on this thread; see [`without_adapters`].
pub(crate) fn are_taken_off() -> bool {
    TAKEN_OFF.get()
}

thread_local! {
    /// Set while adapters are taken off on this thread; see [`without_adapters`].
    static TAKEN_OFF: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` while adapters compose to their bare base on this thread.
///
/// Burn has no way to take a reparameterization off but to replace the parameter by its composed
/// value; with this, that value is the base itself. A switch would do it too, but clones share it.
pub(crate) fn without_adapters<T>(work: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            TAKEN_OFF.set(false);
        }
    }
    TAKEN_OFF.set(true);
    let _restore = Restore;
    work()
}
