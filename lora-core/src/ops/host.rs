//! Devices whose tensors lie in host memory.

use burn::tensor::Device;

/// Whether the device is a CPU, with or without autodiff.
#[cfg(feature = "host")]
pub(crate) fn is_on_host(device: &Device) -> bool {
    use burn::backend::DispatchDevice;
    #[allow(deprecated)] // Burn deprecates ndarray; it is offered as long as Burn has it.
    match device.clone().inner().as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        #[allow(unreachable_patterns)] // Where these are all the backends there are.
        _ => false,
    }
}

#[cfg(feature = "host")]
pub(crate) use super::kernels::dropout_mask;

/// Without a CPU backend no device is one.
#[cfg(not(feature = "host"))]
pub(crate) fn is_on_host(_device: &Device) -> bool {
    false
}

/// Nobody asks for it then.
#[cfg(not(feature = "host"))]
pub(crate) fn dropout_mask(_count: usize, _probability: f64, _seed: u64) -> Vec<f32> {
    Vec::new()
}
