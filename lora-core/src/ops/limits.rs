//! Memory limits and memory use of a device.

use burn::tensor::Device;

/// Returns the largest buffer that the device binds, in bytes, or `None` if there is no such limit.
///
/// A larger tensor must not be put on the device: on many WGPU adapters the limit is 128 MiB, and Burn
/// 0.22.1 was seen to return wrong values beyond it before it failed.
pub fn max_buffer_bytes(device: &Device) -> Option<u64> {
    match device.as_dispatch() {
        #[cfg(feature = "gpu")]
        burn::backend::DispatchDevice::Cube(device) => {
            Some(device.client().properties().memory.max_page_size)
        }
        _ => None,
    }
}

/// Returns the device memory that the backend has reserved, in bytes, including freed memory that it keeps for reuse.
/// `None` if the backend does not report it, as on the CPU.
pub fn device_memory_bytes(device: &Device) -> Option<u64> {
    match device.as_dispatch() {
        #[cfg(feature = "gpu")]
        burn::backend::DispatchDevice::Cube(device) => {
            use burn_cubecl::cubecl::MemoryScope;
            let report = device.client().memory_report(MemoryScope::Device);
            Some(report.usage().bytes_reserved)
        }
        _ => None,
    }
}
