//! What a device can hold, and what it holds.

use burn::tensor::Device;

/// The most bytes that the device binds as one buffer, or `None` where there is no such limit.
///
/// A tensor above it must not be put there: on many WGPU adapters the limit is 128 MiB, and Burn
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

/// The bytes of the device's memory that the backend has reserved, those that it would use again among them; `None`
/// where it does not tell, as on the CPU.
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
