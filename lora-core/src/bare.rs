//! Access to the base below adapters and packed weights.

use std::cell::Cell;

thread_local! {
    static BARE: Cell<bool> = const { Cell::new(false) };
}

/// Returns true if this thread is inside [`bare`]: a reparameterization then returns the base unchanged.
pub(crate) fn is_bare() -> bool {
    BARE.get()
}

/// Runs `work` while adapters and packed weights have no effect on this thread.
///
/// Burn can take a reparameterization off only by replacing the parameter with its composed
/// value; inside this function, that value is the base itself. Unlike an [`AdapterSwitch`](crate::AdapterSwitch), clones
/// of the module are not affected.
pub(crate) fn bare<T>(work: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            BARE.set(false);
        }
    }
    BARE.set(true);
    let _restore = Restore;
    work()
}
