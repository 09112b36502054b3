//! How the process keeps memory, and how much it has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Keeps freed memory in the process, for the next tensor of that size.
///
/// On the CPU backends a training step allocates and frees gigabytes in large pieces. glibc gives
/// each back to the system and takes fresh pages the next time, which costs about a sixth of a
/// GPT-2 step in page faults. To be called first thing in a program; elsewhere than on Linux with
/// glibc it does nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two integers, and is called before any other thread is there.
    unsafe {
        // No piece is mapped by itself, nothing is trimmed, and all threads share one heap.
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// The system's allocator, which counts: a program that is to [plan](crate::tools::estimate()) memory has it as its global one.
///
/// ```
/// use lora_train::memory::{Counting, allocated, peak_allocated, restart_peak};
///
/// #[global_allocator]
/// static COUNTING: Counting = Counting;
///
/// restart_peak();
/// let before = allocated().unwrap();
/// drop(vec![0u8; 1 << 20]);
/// assert!(peak_allocated().unwrap() >= before + (1 << 20));
/// ```
pub struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    let now = ALLOCATED.fetch_add(bytes, Relaxed) + bytes;
    if now > PEAK.load(Relaxed) {
        PEAK.fetch_max(now, Relaxed);
    }
}

fn subtract(bytes: usize) {
    ALLOCATED.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let place = unsafe { System.alloc(layout) };
        if !place.is_null() {
            add(layout.size());
        }
        place
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let place = unsafe { System.alloc_zeroed(layout) };
        if !place.is_null() {
            add(layout.size());
        }
        place
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) };
        subtract(layout.size());
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let moved = unsafe { System.realloc(place, layout, size) };
        if !moved.is_null() {
            add(size);
            subtract(layout.size());
        }
        moved
    }
}

/// Bytes that the process has allocated now; `None` where [`Counting`] is not its allocator.
pub fn allocated() -> Option<usize> {
    Some(ALLOCATED.load(Relaxed)).filter(|&bytes| bytes > 0)
}

/// The most bytes that it has had allocated at once since [`restart_peak`]; `None` where [`Counting`] is not its
/// allocator.
pub fn peak_allocated() -> Option<usize> {
    Some(PEAK.load(Relaxed)).filter(|&bytes| bytes > 0)
}

/// Forgets the peak so far.
pub fn restart_peak() {
    PEAK.store(ALLOCATED.load(Relaxed), Relaxed);
}

/// The most memory that the process has had at once, in MiB; `None` where the system does not tell.
pub fn peak_mib() -> Option<f64> {
    of_process("VmHWM:")
}

/// The memory that the process has now, in MiB; `None` where the system does not tell.
pub fn resident_mib() -> Option<f64> {
    of_process("VmRSS:")
}

/// Memory that the system could give without taking any from others, in MiB; `None` where it does not tell.
pub fn available_mib() -> Option<f64> {
    kib_of("/proc/meminfo", "MemAvailable:")
}

fn of_process(which: &str) -> Option<f64> {
    kib_of("/proc/self/status", which)
}

/// A number of KiB in a file of such lines, in MiB.
fn kib_of(path: &str, which: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(which))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
