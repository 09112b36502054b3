//! Softmax over the last axis.
//!
//! Burn's backends have softmax as one operation, but autodiff splits it into five, each a pass over memory, forward and
//! backward. Here the backward pass is one operation on `y = softmax(x)` alone: `∂x = y (g - Σ g y)`.

use super::prelude::*;
use burn::tensor::Tensor;

backend_operations! {
    /// Softmax on a backend.
    pub trait SoftmaxOps {
        /// Computes `exp(x) / Σ exp(x)` over the last axis.
        #[fusion(default)]
        fn last_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
            let last = x.rank() - 1;
            Self::softmax(x, last)
        }

        /// Computes `y (g - Σ g y)` over the last axis.
        #[fusion(default)]
        fn last_softmax_backward(y: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
            composed_backward::<Self>(y, grad)
        }
    }
}

/// Computes the backward pass by operations of every backend.
fn composed_backward<B: Backend>(y: FloatTensor<B>, grad: FloatTensor<B>) -> FloatTensor<B> {
    let last = y.rank() - 1;
    let sum = B::float_sum_dim(B::float_mul(y.clone(), grad.clone()), last);
    B::float_mul(y, B::float_sub(grad, sum))
}

#[cfg(feature = "flex")]
impl SoftmaxOps for burn::backend::Flex {
    fn last_softmax_backward(y: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        use super::contiguous::contiguous;
        use burn::tensor::DType;
        let shape = y.shape();
        let width = shape[shape.num_dims() - 1];
        let (y, mut grad) = (contiguous(y), contiguous(grad));
        if y.dtype() == DType::F32 && grad.dtype() == DType::F32 && width > 0 {
            super::kernels::softmax_backward(y.storage::<f32>(), grad.storage_mut::<f32>(), width);
            return grad;
        }
        composed_backward::<Self>(y, grad)
    }
}

impl<B: Backend + SoftmaxOps, C: CheckpointStrategy> SoftmaxOps for Autodiff<B, C> {
    fn last_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let operation = Operation::<B, C, _, 1>::new([&x], |pass, grad, y| {
            pass.register(0, || B::last_softmax_backward(y, grad));
        });
        let y = B::last_softmax(x.into_primitive());
        operation.finish(y.clone(), y)
    }
}

/// Computes softmax over the last axis.
///
/// # Shapes
/// - `x`: `[..., n]`
/// - returns `[..., n]`
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::softmax;
///
/// let x = Tensor::<1>::from_floats([0.0, 3f32.ln()], &Device::flex());
/// let y = softmax(x).into_data().to_vec::<f32>().unwrap();
/// assert!((y[0] - 0.25).abs() < 1e-6 && (y[1] - 0.75).abs() < 1e-6);
/// ```
///
/// # Panics
/// Panics on a backend whose feature of this crate is off.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as SoftmaxOps>::last_softmax(x.into_dispatch()))
}
