//! Tolerances for comparing a device with the CPU: the one place that has them.

use burn::tensor::Device;

/// Tolerance of arithmetic in f32: sums of a few hundred terms in another order, and the device's own exponentials. A unit
/// roundoff is 6e-8.
const F32: f64 = 2e-5;

/// Returns the largest difference from the CPU that rounding alone explains, relative to the largest value of a tensor.
pub fn tolerance(device: &Device) -> f64 {
    // Both operands of a product, forward and backward.
    F32 + 4.0 * product_rounding(device)
}

/// Returns the relative error with which an f32 product of matrices rounds its operands: 2⁻²⁴ where it computes in f32, and 2⁻¹¹
/// in TF32, which has 10 bits of mantissa.
///
/// CUDA multiplies f32 matrices in TF32, on an NVIDIA GPU that has it, whenever a kernel for tensor cores wins the tuning
/// (cubek-matmul 0.3.1, `adjust_dtypes`); there is no switch. All other devices compute in f32.
pub fn product_rounding(device: &Device) -> f64 {
    2f64.powi(if multiplies_in_tf32(device) { -11 } else { -24 })
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
        for device in [Device::flex(), Device::flex().autodiff()] {
            assert_eq!(product_rounding(&device), 2f64.powi(-24));
            assert!(tolerance(&device) < 2.1e-5);
        }
    }
}
