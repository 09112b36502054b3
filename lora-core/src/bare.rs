//! Looking under what is put on parameters.

use std::cell::Cell;

thread_local! {
    static BARE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside [`bare`]: a reparameterization then returns the base it is given.
pub(crate) fn is_bare() -> bool {
    BARE.get()
}

/// Runs `work` while adapters and packed weights compose to what the parameter itself holds, on this thread.
///
/// Burn has no way to take a reparameterization off but to replace the parameter by its composed
/// value; with this, that value is the base itself. A switch would do it too, but clones share it.
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
