//! How the process keeps memory.

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

/// The most memory that the process has had at once, in MiB; `None` where the system does not tell.
pub fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
