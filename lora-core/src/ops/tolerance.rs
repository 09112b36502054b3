//! Tolerances for comparing a device with the CPU: the one place that has them.

use super::half_float::HalfFloat;
use burn::tensor::Device;

/// Tolerance of arithmetic in f32: sums of a few hundred terms in another order, and the device's own exponentials. A unit
/// roundoff is 6e-8.
const F32: f64 = 2e-5;

/// Returns the largest difference from the CPU that rounding alone explains, relative to the largest value of a tensor.
pub fn tolerance(device: &Device) -> f64 {
    // Both operands of a product, forward and backward.
    F32 + 4.0 * product_rounding(device)
}

/// Returns the [`tolerance`] of a device whose products with frozen weights are in this 16-bit type, against a CPU that rounds
/// the same operands; `None` stands for f32.
///
/// A weight is the same on both. An activation or a gradient that differs by the relative error ε is rounded to a neighbour
/// of the CPU's number, 2u away for a rounding u, in a share ε/2u of all cases. In root mean square this is √(2εu), and at most 2u. A
/// product has one such operand, forward and backward.
pub fn mixed_tolerance(device: &Device, mixed: Option<HalfFloat>) -> f64 {
    let plain = tolerance(device);
    match mixed {
        None => plain,
        Some(half) => {
            let rounding = 2.0 * half.rounding();
            plain + 2.0 * rounding * (plain / rounding).min(1.0).sqrt()
        }
    }
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
            assert_eq!(mixed_tolerance(&device, None), tolerance(&device));
            let [f16, bf16] = HalfFloat::ALL.map(|half| mixed_tolerance(&device, Some(half)));
            assert!(
                (2e-4..4e-4).contains(&f16) && (7e-4..9e-4).contains(&bf16),
                "{f16} {bf16}"
            );
        }
    }
}
