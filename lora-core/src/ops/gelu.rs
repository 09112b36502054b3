//! GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2), exact or with the tanh approximation.
//!
//! Both multiply `x` by a factor between 0 and 1:
//!
//! - `Φ(x)`, the normal distribution, where the derivative is `Φ(x) + x φ(x)`
//! - `½ (1 + tanh u)` with `u = √(2/π) (x + 0.044715 x³)`, GPT-2's `gelu_new`, written as `s = sigmoid(2u)`, which is the same and
//!   takes one exponential; the derivative is `s + x s (1 - s) 2u'` with `2u' = 2 √(2/π) (1 + 3 · 0.044715 x²)`
//!
//! Only `x` is kept for the backward pass. Burn's CPU backend computes the error function on one core, one element at a
//! time, and the cube as a power with four intermediate tensors. Here each is one parallel loop over rational functions or
//! one exponential.

use super::prelude::*;
use burn::tensor::Tensor;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, SQRT_2};

/// GELU formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeluKind {
    /// Exact: with the error function.
    Exact,
    /// Approximation with the hyperbolic tangent.
    Tanh,
}

backend_operations! {
    /// GELU on a backend.
    pub trait GeluOps {
        /// Computes the GELU of each element.
        #[fusion(default)]
        fn gelu_of_kind(x: FloatTensor<Self>, kind: GeluKind) -> FloatTensor<Self> {
            composed::<Self>(x, kind)
        }

        /// Computes `grad` times the derivative at `x`.
        #[fusion(default)]
        fn gelu_of_kind_backward(
            x: FloatTensor<Self>,
            grad: FloatTensor<Self>,
            kind: GeluKind,
        ) -> FloatTensor<Self> {
            composed_backward::<Self>(x, grad, kind)
        }
    }
}

/// `2 √(2/π)`; `FRAC_2_SQRT_PI` is `2/√π`.
const SLOPE: f64 = FRAC_2_SQRT_PI * SQRT_2;
const CUBIC: f64 = 0.044715;

/// Computes GELU by operations of every backend.
pub(super) fn composed<B: Backend>(x: FloatTensor<B>, kind: GeluKind) -> FloatTensor<B> {
    match kind {
        GeluKind::Exact => B::gelu(x),
        GeluKind::Tanh => {
            let (share, _) = tanh_share::<B>(x.clone());
            B::float_mul(x, share)
        }
    }
}

/// Computes the derivative by operations of every backend.
///
/// Burn's own `gelu_backward` is not used: its default differentiates the tanh approximation, about 1e-4 off the exact
/// derivative.
pub(super) fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
    kind: GeluKind,
) -> FloatTensor<B> {
    let derivative = match kind {
        GeluKind::Exact => {
            let erf = B::float_erf(B::float_mul_scalar(x.clone(), FRAC_1_SQRT_2.into()));
            let cdf = B::float_mul_scalar(B::float_add_scalar(erf, 1.0.into()), 0.5.into());
            let square = B::float_mul(x.clone(), x.clone());
            let power = B::float_exp(B::float_mul_scalar(square, (-0.5).into()));
            let density = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0;
            let pdf = B::float_mul_scalar(power, density.into());
            B::float_add(cdf, B::float_mul(x, pdf))
        }
        GeluKind::Tanh => {
            // Beyond ±20 the derivative is 0 or 1, and the square could overflow.
            let x = B::float_clamp(x, (-20.0).into(), 20.0.into());
            let (share, square) = tanh_share::<B>(x.clone());
            let slope = B::float_mul_scalar(square, (3.0 * SLOPE * CUBIC).into());
            let slope = B::float_mul(B::float_add_scalar(slope, SLOPE.into()), x);
            let rest = B::float_add_scalar(B::float_neg(share.clone()), 1.0.into());
            let slope = B::float_add_scalar(B::float_mul(slope, rest), 1.0.into());
            B::float_mul(share, slope)
        }
    };
    B::float_mul(grad, derivative)
}

/// Returns the factor `s` and `x²`.
fn tanh_share<B: Backend>(x: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let square = B::float_mul(x.clone(), x.clone());
    let slope = B::float_mul_scalar(square.clone(), (SLOPE * CUBIC).into());
    let slope = B::float_add_scalar(slope, SLOPE.into());
    (B::sigmoid(B::float_mul(slope, x)), square)
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, GeluKind, GeluOps, composed, composed_backward};
    use crate::ops::contiguous::contiguous;
    use crate::ops::kernels::{self, map, scale};
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::{DType, TensorData};

    impl GeluOps for Flex {
        fn gelu_of_kind(x: FloatTensor<Self>, kind: GeluKind) -> FloatTensor<Self> {
            if x.dtype() != DType::F32 {
                return composed::<Self>(x, kind);
            }
            let x = contiguous(x);
            let values = x.storage::<f32>();
            let y = match kind {
                GeluKind::Exact => map(values, kernels::gelu),
                GeluKind::Tanh => map(values, kernels::gelu_tanh),
            };
            FloatTensor::<Self>::from_data(TensorData::new(y, x.shape()))
        }

        fn gelu_of_kind_backward(
            x: FloatTensor<Self>,
            grad: FloatTensor<Self>,
            kind: GeluKind,
        ) -> FloatTensor<Self> {
            if x.dtype() != DType::F32 || grad.dtype() != x.dtype() {
                return composed_backward::<Self>(x, grad, kind);
            }
            let (x, mut grad) = (contiguous(x), contiguous(grad));
            let (values, grads) = (x.storage::<f32>(), grad.storage_mut::<f32>());
            match kind {
                GeluKind::Exact => scale(grads, values, kernels::gelu_slope),
                GeluKind::Tanh => scale(grads, values, kernels::gelu_tanh_slope),
            }
            grad
        }
    }
}

impl<B: Backend + GeluOps, C: CheckpointStrategy> GeluOps for Autodiff<B, C> {
    fn gelu_of_kind(x: FloatTensor<Self>, kind: GeluKind) -> FloatTensor<Self> {
        let mut operation = Operation::<B, C, _, 1>::new([&x], |pass, grad, (x, kind)| {
            let x = pass.saved(x);
            pass.register(0, || B::gelu_of_kind_backward(x, grad, kind));
        });
        let state = (operation.save(&x), kind);
        operation.finish(state, B::gelu_of_kind(x.into_primitive(), kind))
    }
}

fn apply<const D: usize>(x: Tensor<D>, kind: GeluKind) -> Tensor<D> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(<Dispatch as GeluOps>::gelu_of_kind(x, kind))
}

/// Computes `x Φ(x)` of each element.
///
/// # Shapes
/// - `x`: `[...]`
/// - returns `[...]`
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::gelu;
///
/// let x = Tensor::<1>::from_floats([-1.0, 0.0, 2.0], &Device::flex());
/// let y = gelu(x).into_data().to_vec::<f32>().unwrap();
/// for (found, expected) in y.iter().zip([-0.15865526, 0.0, 1.9544997]) {
///     assert!((found - expected).abs() < 3e-7);
/// }
/// ```
///
/// # Panics
/// Panics on a backend whose feature of this crate is off.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    apply(x, GeluKind::Exact)
}

/// Computes `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))` of each element.
///
/// # Shapes
/// - `x`: `[...]`
/// - returns `[...]`
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::gelu_tanh;
///
/// let x = Tensor::<1>::from_floats([-1.0, 0.0, 2.0], &Device::flex());
/// let y = gelu_tanh(x).into_data().to_vec::<f32>().unwrap();
/// for (found, expected) in y.iter().zip([-0.158808, 0.0, 1.9545977]) {
///     assert!((found - expected).abs() < 3e-7);
/// }
/// ```
///
/// # Panics
/// Panics on a backend whose feature of this crate is off.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    apply(x, GeluKind::Tanh)
}
