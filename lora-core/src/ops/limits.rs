//! What a device can hold.

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
