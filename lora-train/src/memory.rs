//! Memory of the process: allocator settings and measurements.

#![expect(unsafe_code, reason = "a global allocator, and settings of glibc")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Keeps freed memory in the process for reuse by later tensors.
///
/// On the CPU backends a training step allocates and frees gigabytes in large pieces. glibc returns
/// each piece to the system and requests new pages the next time; the page faults cost about a sixth of
/// a GPT-2 step. Call this first in a program: glibc's settings may not change while another thread allocates, and this has no
/// effect if there is one. It has none either except on Linux with glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if is_alone() {
        let set = |parameter, value| {
            // SAFETY: `mallopt` takes two integers. No other thread allocates: there is none, and only this one could start one.
            unsafe { libc::mallopt(parameter, value) }
        };
        // No separate mappings, no trimming, and one heap for all threads.
        set(libc::M_MMAP_MAX, 0);
        set(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        set(libc::M_ARENA_MAX, 1);
    }
}

/// Returns true if the process is known to have no other thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// The system's allocator with counters. The memory estimate of `lora plan` needs it as the global allocator.
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

/// Returns the bytes that the process has allocated; `None` unless [`Counting`] is its allocator.
pub fn allocated() -> Option<usize> {
    Some(ALLOCATED.load(Relaxed)).filter(|&bytes| bytes > 0)
}

/// Returns the largest number of bytes allocated at once since [`restart_peak`]; `None` unless [`Counting`] is the
/// allocator.
pub fn peak_allocated() -> Option<usize> {
    Some(PEAK.load(Relaxed)).filter(|&bytes| bytes > 0)
}

/// Resets the peak to the current allocation.
pub fn restart_peak() {
    PEAK.store(ALLOCATED.load(Relaxed), Relaxed);
}

/// Returns the peak resident memory of the process, in MiB; `None` if the system does not report it.
pub fn peak_mib() -> Option<f64> {
    process_mib("VmHWM:")
}

/// Lets [`peak_mib`] start again from the memory in use, where the system can: Linux does.
pub fn restart_peak_mib() {
    // Five resets the peak (`proc_pid_clear_refs(5)`). Without it the peak is that of the process, which is no error.
    #[cfg(target_os = "linux")]
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Returns the resident memory of the process, in MiB; `None` if the system does not report it.
pub fn resident_mib() -> Option<f64> {
    process_mib("VmRSS:")
}

/// Returns the memory that is available without swapping, in MiB; `None` if the system does not report it.
pub fn available_mib() -> Option<f64> {
    read_mib("/proc/meminfo", "MemAvailable:")
}

fn process_mib(which: &str) -> Option<f64> {
    read_mib("/proc/self/status", which)
}

/// Reads the field `which`, in KiB, from a file with one field per line, and converts it to MiB.
fn read_mib(path: &str, which: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(which))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
