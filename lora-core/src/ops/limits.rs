//! Memory limits and memory use of a device.

use super::scoped::scoped;
#[cfg(feature = "gpu")]
use burn::backend::DispatchDevice;
use burn::tensor::Device;
use std::cell::Cell;

thread_local! {
    static LOWERED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Returns the largest buffer that the device binds, in bytes, or `None` if there is no such limit.
///
/// A larger tensor must not be put on the device. On WGPU the limit is the adapter's: 2 GiB and more on desktop GPUs and
/// Apple's, 512 MiB and more on integrated ones, 128 MiB on software Vulkan.
pub fn max_buffer_bytes(device: &Device) -> Option<u64> {
    let own = match device.clone().inner().as_dispatch() {
        #[cfg(feature = "gpu")]
        DispatchDevice::Cube(device) => Some(device.client().properties().memory.max_page_size),
        _ => None,
    };
    own.into_iter().chain(LOWERED.get()).min()
}

/// Runs `work` on this thread as if no device bound more than `bytes` in one buffer, to test with small models what
/// large ones do on small devices.
pub fn with_max_buffer_bytes<T>(bytes: u64, work: impl FnOnce() -> T) -> T {
    scoped(&LOWERED, Some(bytes), work)
}

/// Returns the device memory that the backend has reserved, in bytes, including freed memory that it keeps for reuse.
/// `None` if the backend does not report it, as on the CPU.
pub fn device_memory_bytes(device: &Device) -> Option<u64> {
    match device.clone().inner().as_dispatch() {
        #[cfg(feature = "gpu")]
        DispatchDevice::Cube(device) => {
            use burn_cubecl::cubecl::MemoryScope;
            let report = device.client().memory_report(MemoryScope::Device);
            Some(report.usage().bytes_reserved)
        }
        _ => None,
    }
}
