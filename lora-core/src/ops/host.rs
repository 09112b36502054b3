//! Devices and backends whose tensors lie in host memory.

use burn::backend::Backend;
use burn::tensor::Device;
use std::any::TypeId;

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

/// Returns true for the backends of the CPU. Without one compiled in, it is false for all.
pub(super) fn is_host_backend<B: Backend>() -> bool {
    [
        #[cfg(feature = "flex")]
        TypeId::of::<burn::backend::Flex>(),
        #[cfg(feature = "ndarray")]
        TypeId::of::<burn::backend::NdArray>(),
    ]
    .contains(&TypeId::of::<B>())
}

#[cfg(feature = "host")]
pub(super) use super::kernels::dropout_mask;

/// Unreachable stub: without a CPU backend, no tensor is on the host.
#[cfg(not(feature = "host"))]
pub(super) fn dropout_mask(
    _count: usize,
    _mask: super::seeded_mask::SeededMask,
    _first: usize,
) -> Vec<f32> {
    Vec::new()
}
