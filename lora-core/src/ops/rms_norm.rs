//! Normalization by the root mean square over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467).
//!
//! With `r = √(mean(x²) + ε)` of a row, `y = γ x/r`. The forward pass keeps `x`, and 1/r of each row. With the gradient g of y:
//!
//! - `∂x = (h - x mean(h x)/r²)/r` with `h = γ g`
//! - `∂γ = Σ g x/r` over the rows, if it is trained

use super::prelude::*;
use burn::tensor::{Shape, Tensor};

backend_operations! {
    /// Normalization by the root mean square, on a backend.
    ///
    /// # Shapes
    /// - `x`, `grad`: `[rows, d]`; `gamma`: `[d]`; `inverse`: `[rows, 1]`, the inverse root mean square of each row
    pub trait RmsNormOps {
        /// Computes `y`.
        #[fusion(default)]
        fn rms_rows(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            epsilon: f64,
        ) -> FloatTensor<Self> {
            Self::rms_rows_forward(x, gamma, epsilon).0
        }

        /// Computes `y` and the inverse root mean squares.
        #[fusion(default)]
        fn rms_rows_forward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            epsilon: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            composed_forward::<Self>(x, gamma, epsilon)
        }

        /// Computes `∂x`.
        #[fusion(default)]
        fn rms_rows_backward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            inverse: FloatTensor<Self>,
            grad: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            composed_backward::<Self>(x, gamma, inverse, grad)
        }

        /// Computes `∂γ`, in f32 at least.
        #[fusion(default)]
        fn rms_rows_scale_backward(
            x: FloatTensor<Self>,
            inverse: FloatTensor<Self>,
            grad: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            let [_, d] = x.shape().dims();
            let wide = inverse.dtype();
            let normal = Self::float_mul(cast::<Self>(x, wide), inverse);
            let all = Self::float_mul(cast::<Self>(grad, wide), normal);
            Self::float_reshape(Self::float_sum_dim(all, 0), Shape::new([d]))
        }
    }
}

/// Reshapes `[d]` to `[1, d]`, in the element type of `like`.
fn as_row<B: Backend>(vector: FloatTensor<B>, like: &FloatTensor<B>) -> FloatTensor<B> {
    let [d] = vector.shape().dims();
    cast::<B>(B::float_reshape(vector, Shape::new([1, d])), like.dtype())
}

fn composed_forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = x.dtype();
    let x = cast::<B>(x, accumulation_dtype(dtype));
    let square = B::float_mean_dim(B::float_mul(x.clone(), x.clone()), 1);
    let root = B::float_sqrt(B::float_add_scalar(square, epsilon.into()));
    let inverse = B::float_recip(root);
    let normal = B::float_mul(x, inverse.clone());
    let gamma = as_row::<B>(gamma, &normal);
    (cast::<B>(B::float_mul(normal, gamma), dtype), inverse)
}

fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    inverse: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let wide = inverse.dtype();
    let normal = B::float_mul(cast::<B>(x, wide), inverse.clone());
    let h = B::float_mul(cast::<B>(grad, wide), as_row::<B>(gamma, &normal));
    let along = B::float_mean_dim(B::float_mul(h.clone(), normal.clone()), 1);
    let rest = B::float_sub(h, B::float_mul(normal, along));
    cast::<B>(B::float_mul(rest, inverse), dtype)
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, RmsNormOps, composed_backward, composed_forward};
    use crate::ops::contiguous::{are_plain_f32, contiguous};
    use crate::ops::kernels;
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::TensorData;

    impl RmsNormOps for Flex {
        fn rms_rows_forward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            epsilon: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            if !are_plain_f32(&[&x, &gamma]) {
                return composed_forward::<Self>(x, gamma, epsilon);
            }
            let [rows, d] = x.shape().dims();
            let [x, gamma] = [x, gamma].map(contiguous);
            let (y, inverse) =
                kernels::rms_rows(x.storage::<f32>(), gamma.storage::<f32>(), epsilon as f32);
            (
                FloatTensor::<Self>::from_data(TensorData::new(y, [rows, d])),
                FloatTensor::<Self>::from_data(TensorData::new(inverse, [rows, 1])),
            )
        }

        fn rms_rows_backward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            inverse: FloatTensor<Self>,
            grad: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            if !are_plain_f32(&[&x, &gamma, &inverse, &grad]) {
                return composed_backward::<Self>(x, gamma, inverse, grad);
            }
            let [x, gamma, inverse, mut grad] = [x, gamma, inverse, grad].map(contiguous);
            kernels::rms_rows_backward(
                x.storage::<f32>(),
                gamma.storage::<f32>(),
                inverse.storage::<f32>(),
                grad.storage_mut::<f32>(),
            );
            grad
        }
    }
}

impl<B: Backend + RmsNormOps, C: CheckpointStrategy> RmsNormOps for Autodiff<B, C> {
    fn rms_rows(x: FloatTensor<Self>, gamma: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
        let mut operation = Operation::<B, C, _, 2>::new([&x, &gamma], backward);
        let input = operation.save(&x);
        let [x, gamma] = [x, gamma].map(|tensor| tensor.into_primitive());
        let (y, inverse) = B::rms_rows_forward(x, gamma.clone(), epsilon);
        operation.finish((input, [gamma, inverse]), y)
    }
}

fn backward<B: Backend + RmsNormOps>(
    pass: &mut BackwardPass<'_, B, 2>,
    grad: FloatTensor<B>,
    (x, [gamma, inverse]): (NodeId, [FloatTensor<B>; 2]),
) {
    let x = pass.saved(x);
    if pass.needs(1) {
        let grad_gamma = B::rms_rows_scale_backward(x.clone(), inverse.clone(), grad.clone());
        pass.register(1, || cast::<B>(grad_gamma, gamma.dtype()));
    }
    pass.register(0, || B::rms_rows_backward(x, gamma, inverse, grad));
}

/// Computes `γ x/√(mean(x²) + ε)` over the last axis.
///
/// # Shapes
/// - `x`: `[..., d]`; `gamma`: `[d]`
/// - returns `[..., d]`
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::rms_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_floats([[3.0, 3.0, -3.0, -3.0]], &device);
/// let gamma = Tensor::<1>::from_floats([1.0, 2.0, 1.0, 0.5], &device);
/// let y = rms_norm(x, gamma, 0.0);
/// assert_eq!(y.into_data().to_vec::<f32>().unwrap(), [1.0, 2.0, -1.0, -0.5]);
/// ```
///
/// # Panics
/// Panics on shapes that do not match, and on a backend whose feature of this crate is off.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let shape = x.shape();
    let d = shape[D - 1];
    assert_eq!(gamma.dims(), [d], "scale for {d} features");
    let rows = shape.num_elements() / d.max(1);
    let y: Tensor<2> = Tensor::from_dispatch(<Dispatch as RmsNormOps>::rms_rows(
        x.reshape([rows, d]).into_dispatch(),
        gamma.into_dispatch(),
        epsilon,
    ));
    y.reshape(shape)
}
