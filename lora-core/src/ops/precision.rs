//! Mixed precision: products with frozen weights in 16 bits, everything else in f32.
//!
//! Inside [`with_mixed_precision`], packed weights, and an embedding as an output layer, are multiplied in a 16-bit type. The other
//! operand is rounded to it; sums and results are in f32. The factors of adapters, attention, norms, losses and the
//! optimizer stay in f32, as do weights that are trained.
//!
//! # Range
//! bf16 has the range of f32, f16 has not: gradients of a mean loss over thousands of tokens underflow. PyTorch's `GradScaler` multiplies the
//! loss by a power of two, halves it when gradients become infinite, and leaves these steps out. Here each row of the other
//! operand is divided by a share of its largest magnitude before it is rounded, and the row of the product multiplied by it:
//! gradients cannot underflow and activations cannot overflow, whatever the loss is, and there is no scale to find, to undo or to keep in
//! a checkpoint. An operand that is not finite gives a product that is not finite.

use super::half_float::HalfFloat;
use super::scoped::scoped;
use burn::tensor::{DType, Device, Tensor};
use std::cell::Cell;

thread_local! {
    /// Type of the products with frozen weights; `None` for f32.
    static MIXED: Cell<Option<HalfFloat>> = const { Cell::new(None) };
}

/// Runs `work` with products with frozen weights in a 16-bit type, or with `None` in f32.
///
/// The precision holds for this thread. Operations under autodiff keep it for their backward pass, wherever that runs. The devices of
/// `work` must support the type, see [`mixed_type`]. The backend flex rounds the same operands and multiplies them in f32, for
/// comparisons: this is slower than f32. The backend ndarray has no 16-bit types.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::{HalfFloat, with_mixed_precision};
/// use lora_core::{BaseDType, BaseFloats, LoraLinear, LoraLinearConfig, narrow};
///
/// let device = Device::flex();
/// let layer = LoraLinearConfig::new(2, 2).with_bias(false).init(&device);
/// let layer = LoraLinear {
///     weight: layer.weight.map(|_| Tensor::from_floats([[1.0, 2.0], [0.0, 1.0]], &device)),
///     ..layer
/// };
/// let (layer, _) = narrow(layer, &BaseFloats::new(BaseDType::Bf16))?;
/// // 1 + 2⁻¹² is 1 in bf16.
/// let x = Tensor::<2>::from_floats([[1.0 + 2f32.powi(-12), 0.0]], &device);
/// let y = with_mixed_precision(Some(HalfFloat::Bf16), || layer.forward(x.clone()));
/// assert_eq!(y.into_data().to_vec::<f32>().unwrap(), [1.0, 2.0]);
/// assert_ne!(layer.forward(x).into_data().to_vec::<f32>().unwrap(), [1.0, 2.0]);
/// # Ok::<(), lora_core::LoraError>(())
/// ```
pub fn with_mixed_precision<T>(half: Option<HalfFloat>, work: impl FnOnce() -> T) -> T {
    scoped(&MIXED, half, work)
}

/// Returns the type of products with frozen weights that holds here.
pub(super) fn mixed() -> Option<HalfFloat> {
    MIXED.get()
}

/// Returns the 16-bit type of a device's products in mixed precision: bf16 on CUDA and `ROCm` if the hardware computes in it, else
/// f16 if the device computes in that; `None` for other devices, and for CPUs, which gain nothing.
///
/// Backends of WGPU have no arithmetic in bf16.
pub fn mixed_type(device: &Device) -> Option<HalfFloat> {
    if super::is_on_host(device) {
        return None;
    }
    let device = device.clone().inner();
    let computes = |half: HalfFloat| device.supports_dtype(half.dtype());
    let runtime = super::device_facts(&device).runtime;
    let prefers_bf16 = matches!(runtime.as_str(), "cuda" | "hip");
    let first = if prefers_bf16 {
        HalfFloat::Bf16
    } else {
        HalfFloat::F16
    };
    [first, HalfFloat::F16]
        .into_iter()
        .find(|&half| computes(half))
}

/// Returns a frozen dense weight as an operand of a product: in mixed precision rounded to 16 bits, once for the
/// products of a pass. A trained weight stays as it is.
pub(crate) fn operand<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    match mixed() {
        Some(half) if weight.dtype() == DType::F32 && !weight.is_tracked() => {
            weight.cast(half.dtype())
        }
        _ => weight,
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_has_no_type_for_mixed_precision() {
        assert_eq!(mixed_type(&Device::flex()), None);
        assert_eq!(mixed_type(&Device::flex().autodiff()), None);
    }
}
