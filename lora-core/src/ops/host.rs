//! Devices whose tensors lie in host memory.

use burn::tensor::Device;

/// Returns true if the device is a CPU, with or without autodiff.
pub fn is_on_host(device: &Device) -> bool {
    match device.clone().inner().as_dispatch() {
        #[cfg(feature = "flex")]
        burn::backend::DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        burn::backend::DispatchDevice::NdArray(_) => true,
        #[allow(unreachable_patterns)] // Unreachable if only CPU backends are compiled in.
        _ => false,
    }
}

#[cfg(feature = "host")]
pub(crate) use super::kernels::dropout_mask;

/// Unreachable stub: without a CPU backend, no device is on the host.
#[cfg(not(feature = "host"))]
pub(crate) fn dropout_mask(_count: usize, _probability: f64, _seed: u64) -> Vec<f32> {
    Vec::new()
}
