//! A value of this thread that holds for a while: [`scoped`].

use std::cell::Cell;
use std::thread::LocalKey;

/// Runs `work` with another value of a thread's cell. Afterwards the cell has its value of before, also after a panic.
pub(crate) fn scoped<V: Copy + 'static, T>(
    cell: &'static LocalKey<Cell<V>>,
    value: V,
    work: impl FnOnce() -> T,
) -> T {
    struct Restore<V: Copy + 'static>(&'static LocalKey<Cell<V>>, V);
    impl<V: Copy + 'static> Drop for Restore<V> {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(cell, cell.replace(value));
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static CELL: Cell<u32> = const { Cell::new(1) };
    }

    #[test]
    fn a_value_holds_inside_and_the_one_before_returns_also_after_a_panic() {
        scoped(&CELL, 2, || {
            scoped(&CELL, 3, || assert_eq!(CELL.get(), 3));
            assert_eq!(CELL.get(), 2);
            let panic = std::panic::catch_unwind(|| scoped(&CELL, 4, || panic!("on purpose")));
            assert!(panic.is_err());
            assert_eq!(CELL.get(), 2);
        });
        assert_eq!(CELL.get(), 1);
    }
}
