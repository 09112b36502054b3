//! Allocator with a limit: what a file of some kilobytes may cost.

#![allow(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Most bytes that may be allocated together, for inputs of some kilobytes. The reader of pickles has the largest
/// budget: a million objects that the memo may copy.
pub const LIMIT: usize = 768 << 20;

static USED: AtomicUsize = AtomicUsize::new(0);
static BOUNDED: AtomicBool = AtomicBool::new(false);

/// Limits the allocations of the process to [`LIMIT`] bytes from now on.
pub fn bound() {
    BOUNDED.store(true, Ordering::Relaxed);
}

/// Allocator that fails past [`LIMIT`] once [`bound`] was called, with a message that tells the size: an allocation that the
/// program does not check ends it there.
pub struct Bounded<A>(pub A);

/// Counts bytes as used, and returns true if the limit allows them.
fn take(bytes: usize) -> bool {
    let before = USED.fetch_add(bytes, Ordering::Relaxed);
    let fits = before.checked_add(bytes).is_some_and(|sum| sum <= LIMIT);
    if fits || !BOUNDED.load(Ordering::Relaxed) {
        return true;
    }
    give_back(bytes);
    // A caller that checks the allocation goes on; for all others this tells what it was. Nothing is allocated here.
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    let _ = writeln!(
        std::io::stderr(),
        "{name}: {bytes} bytes more are past the limit of {LIMIT}"
    );
    false
}

fn give_back(bytes: usize) {
    USED.fetch_sub(bytes, Ordering::Relaxed);
}

/// Allocates through `allocate` if the limit allows it; returns the null pointer of a failed allocation otherwise.
fn limited(bytes: usize, allocate: impl FnOnce() -> *mut u8) -> *mut u8 {
    if !take(bytes) {
        return std::ptr::null_mut();
    }
    let place = allocate();
    if place.is_null() {
        give_back(bytes);
    }
    place
}

// SAFETY: every call is handed to the inner allocator as it came, or answered with the null pointer that stands for an
// allocation that failed.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Bounded<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        limited(layout.size(), || unsafe { self.0.alloc(layout) })
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(place, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        limited(layout.size(), || unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let grown = size.saturating_sub(layout.size());
        // SAFETY: the caller's promise.
        let moved = limited(grown, || unsafe { self.0.realloc(place, layout, size) });
        if !moved.is_null() {
            give_back(layout.size().saturating_sub(size));
        }
        moved
    }
}
