//! Tolerances for comparing a device with the CPU: the one place that has them.

use burn::tensor::Device;

/// Tolerance of arithmetic in f32: sums of a few hundred terms in another order, and the device's own exponentials. A unit
/// roundoff is 6e-8.
const F32: f64 = 2e-5;
/// Tolerance of products in TF32: both factors are rounded to 10 bits of mantissa, each by up to 5e-4, and the sum is
/// accumulated in f32.
const TF32: f64 = 2e-3;

/// Returns the largest difference from the CPU that rounding alone explains, relative to the largest value of a tensor.
///
/// Where an NVIDIA GPU has TF32, CUDA multiplies f32 matrices in it whenever a kernel for tensor cores wins the tuning
/// (cubek-matmul 0.3.1, `adjust_dtypes`); there is no switch. All other devices compute in f32.
pub fn tolerance(device: &Device) -> f64 {
    if multiplies_in_tf32(device) {
        TF32
    } else {
        F32
    }
}

/// Returns true if the device may multiply f32 matrices in TF32.
pub(super) fn multiplies_in_tf32(device: &Device) -> bool {
    match device.clone().inner().as_dispatch() {
        #[cfg(feature = "gpu")]
        burn::backend::DispatchDevice::Cube(device) => {
            use burn_cubecl::cubecl::ir::{ElemType, FloatKind};
            let tf32 = ElemType::Float(FloatKind::TF32);
            device.client().properties().supports_type(tf32)
        }
        _ => false,
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_computes_in_f32() {
        assert_eq!(tolerance(&Device::flex()), F32);
        assert_eq!(tolerance(&Device::flex().autodiff()), F32);
    }
}
