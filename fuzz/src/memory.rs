//! An allocator that gives no more than a limit: what a file of some kilobytes may cost.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most bytes that all that is allocated may have together, for inputs of some kilobytes. The reader of pickles has
/// the largest budget: a million objects that the memo may copy.
pub const LIMIT: usize = 768 << 20;

static USED: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which fails past [`LIMIT`]: an allocation that the program does not check ends it there, with
/// a message that says how large it was.
pub struct Bounded;

impl Bounded {
    /// Takes bytes of the limit, if there are as many.
    fn take(bytes: usize) -> bool {
        let before = USED.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.checked_add(bytes).is_some_and(|sum| sum <= LIMIT);
        if !fits {
            USED.fetch_sub(bytes, Ordering::Relaxed);
            // Whoever checks the allocation goes on; if nobody does, this says what it was. Nothing is allocated here.
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            let _ = writeln!(
                std::io::stderr(),
                "{name}: {bytes} bytes more are past the limit of {LIMIT}"
            );
        }
        fits
    }
}

// SAFETY: every call is handed to the system's allocator as it came, or answered with the null pointer that stands for
// an allocation that failed.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Self::take(layout.size()) {
            // SAFETY: as the caller promises.
            true => unsafe { System.alloc(layout) },
            false => std::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match Self::take(layout.size()) {
            // SAFETY: as the caller promises.
            true => unsafe { System.alloc_zeroed(layout) },
            false => std::ptr::null_mut(),
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let grown = size.saturating_sub(layout.size());
        if !Self::take(grown) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        let given_back = match moved.is_null() {
            true => grown,
            false => layout.size().saturating_sub(size),
        };
        USED.fetch_sub(given_back, Ordering::Relaxed);
        moved
    }
}
