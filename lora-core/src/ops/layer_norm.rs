//! Layer normalization over the last axis (Ba et al. 2016, arXiv 1607.06450).
//!
//! With the mean μ and the standard deviation σ of a row, `x̂ = (x - μ)/σ` and `y = γ x̂ + β`; σ² is the variance
//! plus ε. Under autodiff Burn's layer norm is a dozen operations, each a pass over memory, forward and backward. Here the
//! forward pass keeps `x`, and μ and 1/σ of each row. With the gradient g of y:
//!
//! - `∂x = (h - mean(h) - x̂ mean(h x̂))/σ` with `h = γ g`
//! - `∂γ = Σ g x̂`, `∂β = Σ g` over the rows, if they are trained

use super::prelude::*;
use super::product::as_rows;
use super::recipe::Recipe;
use super::statistics::columns;
use burn::tensor::{DType, Shape, Tensor};

backend_operations! {
    /// Layer normalization on a backend.
    ///
    /// # Shapes
    /// - `x`, `grad`: `[rows, d]`; `gamma`, `beta`: `[d]`
    /// - `mean`, `inverse`: `[rows, 1]`, mean and inverse standard deviation of each row. A kernel may keep both in `mean`,
    ///   `[rows, 2]`; its `inverse` is not read
    pub trait LayerNormOps {
        /// Computes `y` of `x`: `[..., d]`.
        #[fusion(default)]
        fn norm_rows(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            epsilon: f64,
        ) -> FloatTensor<Self> {
            let shape = x.shape();
            let (y, _, _) = Self::norm_rows_forward(as_rows::<Self>(x), gamma, beta, epsilon);
            Self::float_reshape(y, shape)
        }

        /// Computes `y`, the means and the inverse standard deviations.
        #[fusion(default)]
        fn norm_rows_forward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            epsilon: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            composed_forward::<Self>(x, gamma, beta, epsilon)
        }

        /// Computes `y` again, from the means and the inverse standard deviations.
        #[fusion(default)]
        fn norm_rows_again(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            mean: FloatTensor<Self>,
            inverse: FloatTensor<Self>,
            _epsilon: f64,
        ) -> FloatTensor<Self> {
            let dtype = x.dtype();
            let (normal, _) = normalized::<Self>(x, mean, inverse);
            scaled::<Self>(normal, gamma, beta, dtype)
        }

        /// Computes `∂x`.
        #[fusion(default)]
        fn norm_rows_backward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            mean: FloatTensor<Self>,
            inverse: FloatTensor<Self>,
            grad: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            composed_backward::<Self>(x, gamma, mean, inverse, grad)
        }

        /// Computes `∂γ` and `∂β`, in f32 at least.
        #[fusion(default)]
        fn norm_rows_affine_backward(
            x: FloatTensor<Self>,
            mean: FloatTensor<Self>,
            inverse: FloatTensor<Self>,
            grad: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let [_, d] = x.shape().dims();
            let (normal, _) = normalized::<Self>(x, mean, inverse);
            let grad = Self::float_cast(grad, normal.dtype().into());
            let sum = |rows: FloatTensor<Self>| {
                Self::float_reshape(Self::float_sum_dim(rows, 0), Shape::new([d]))
            };
            (sum(Self::float_mul(grad.clone(), normal)), sum(grad))
        }
    }
}

/// Casts a tensor to the type in which its sums are accumulated.
fn wide<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = accumulation_dtype(tensor.dtype());
    if dtype == tensor.dtype() {
        tensor
    } else {
        B::float_cast(tensor, dtype.into())
    }
}

/// Reshapes `[d]` to `[1, d]`, in the element type of `like`.
fn as_row<B: Backend>(vector: FloatTensor<B>, like: &FloatTensor<B>) -> FloatTensor<B> {
    let [d] = vector.shape().dims();
    B::float_cast(
        B::float_reshape(vector, Shape::new([1, d])),
        like.dtype().into(),
    )
}

fn composed_forward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let dtype = x.dtype();
    let x = wide::<B>(x);
    let mean = B::float_mean_dim(x.clone(), 1);
    let centered = B::float_sub(x, mean.clone());
    let variance = B::float_mean_dim(B::float_mul(centered.clone(), centered.clone()), 1);
    let deviation = B::float_sqrt(B::float_add_scalar(variance, epsilon.into()));
    let inverse = B::float_recip(deviation);
    let normal = B::float_mul(centered, inverse.clone());
    (scaled::<B>(normal, gamma, beta, dtype), mean, inverse)
}

/// Computes `γ x̂ + β` in a type.
fn scaled<B: Backend>(
    normal: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    dtype: DType,
) -> FloatTensor<B> {
    let (gamma, beta) = (as_row::<B>(gamma, &normal), as_row::<B>(beta, &normal));
    let y = B::float_add(B::float_mul(normal, gamma), beta);
    B::float_cast(y, dtype.into())
}

/// Computes `x̂`, and returns `1/σ` as `[rows, 1]`.
fn normalized<B: Backend>(
    x: FloatTensor<B>,
    mean: FloatTensor<B>,
    inverse: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [mean, inverse] = columns::<B>(mean, inverse);
    let centered = B::float_sub(wide::<B>(x), mean);
    (B::float_mul(centered, inverse.clone()), inverse)
}

fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    mean: FloatTensor<B>,
    inverse: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normal, inverse) = normalized::<B>(x, mean, inverse);
    let h = B::float_cast(grad, normal.dtype().into());
    let h = B::float_mul(h, as_row::<B>(gamma, &normal));
    let along = B::float_mean_dim(B::float_mul(h.clone(), normal.clone()), 1);
    let centered = B::float_sub(h.clone(), B::float_mean_dim(h, 1));
    let rest = B::float_sub(centered, B::float_mul(normal, along));
    B::float_cast(B::float_mul(rest, inverse), dtype.into())
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, LayerNormOps, composed_backward, composed_forward};
    use crate::ops::contiguous::{are_plain_f32, contiguous};
    use crate::ops::kernels;
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::TensorData;

    impl LayerNormOps for Flex {
        fn norm_rows_forward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            epsilon: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            if !are_plain_f32(&[&x, &gamma, &beta]) {
                return composed_forward::<Self>(x, gamma, beta, epsilon);
            }
            let [rows, d] = x.shape().dims();
            let [x, gamma, beta] = [x, gamma, beta].map(contiguous);
            let (y, statistics) = kernels::norm_rows(
                x.storage::<f32>(),
                [gamma.storage::<f32>(), beta.storage::<f32>()],
                epsilon as f32,
            );
            let pairs = FloatTensor::<Self>::from_data(TensorData::new(statistics, [rows, 2]));
            let y = FloatTensor::<Self>::from_data(TensorData::new(y, [rows, d]));
            (y, pairs.clone(), pairs)
        }

        fn norm_rows_again(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            _mean: FloatTensor<Self>,
            _inverse: FloatTensor<Self>,
            epsilon: f64,
        ) -> FloatTensor<Self> {
            // One pass over rows in the cache.
            Self::norm_rows_forward(x, gamma, beta, epsilon).0
        }

        fn norm_rows_backward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            mean: FloatTensor<Self>,
            inverse: FloatTensor<Self>,
            grad: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            if !are_plain_f32(&[&x, &gamma, &mean, &grad]) {
                return composed_backward::<Self>(x, gamma, mean, inverse, grad);
            }
            // Mean and inverse standard deviation of each row are pairs in one tensor.
            let [x, gamma, pairs, mut grad] = [x, gamma, mean, grad].map(contiguous);
            kernels::norm_rows_backward(
                x.storage::<f32>(),
                gamma.storage::<f32>(),
                pairs.storage::<f32>(),
                grad.storage_mut::<f32>(),
            );
            grad
        }
    }
}

impl<B: Backend + LayerNormOps, C: CheckpointStrategy> LayerNormOps for Autodiff<B, C> {
    fn norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let mut operation = Operation::<B, C, _, 3>::new([&x, &gamma, &beta], backward);
        let (input, dtype) = (operation.save(&x), beta.dtype());
        let [x, gamma, beta] = [x, gamma, beta].map(|tensor| tensor.into_primitive());
        let shape = x.shape();
        let x = as_rows::<B>(x);
        let (y, mean, inverse) =
            B::norm_rows_forward(x.clone(), gamma.clone(), beta.clone(), epsilon);
        let y = B::float_reshape(y, shape.clone());
        let kept = [gamma, mean, inverse];
        let recipe = {
            let kept = kept.clone();
            Recipe::new(move || {
                let [gamma, mean, inverse] = kept.clone();
                let y = B::norm_rows_again(x.clone(), gamma, beta.clone(), mean, inverse, epsilon);
                B::float_reshape(y, shape.clone())
            })
        };
        let y = operation.finish((input, dtype, kept, recipe.clone()), y);
        recipe.declare(y.id());
        y
    }
}

/// Input, type of β, and γ with the statistics of the rows; the recipe of the output.
type Saved<B> = (NodeId, DType, [FloatTensor<B>; 3], Recipe<B>);

fn backward<B: Backend + LayerNormOps>(
    pass: &mut BackwardPass<'_, B, 3>,
    grad: FloatTensor<B>,
    (x, beta_dtype, [gamma, mean, inverse], _): Saved<B>,
) {
    let x = pass.saved(x);
    let shape = x.shape();
    let [x, grad] = [x, grad].map(as_rows::<B>);
    if pass.needs(1) || pass.needs(2) {
        let (grad_gamma, grad_beta) =
            B::norm_rows_affine_backward(x.clone(), mean.clone(), inverse.clone(), grad.clone());
        pass.register(1, || cast::<B>(grad_gamma, gamma.dtype()));
        pass.register(2, || cast::<B>(grad_beta, beta_dtype));
    }
    pass.register(0, || {
        let gradient = B::norm_rows_backward(x, gamma, mean, inverse, grad);
        B::float_reshape(gradient, shape)
    });
}

/// Computes `γ (x - μ)/σ + β` over the last axis, where σ² is the variance plus `epsilon`.
///
/// # Shapes
/// - `x`: `[..., d]`; `gamma`, `beta`: `[d]`
/// - returns `[..., d]`
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::layer_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_floats([[1.0, 3.0]], &device);
/// let gamma = Tensor::<1>::from_floats([2.0, 2.0], &device);
/// let beta = Tensor::<1>::from_floats([0.5, 0.5], &device);
/// let y = layer_norm(x, gamma, beta, 0.0);
/// assert_eq!(y.into_data().to_vec::<f32>().unwrap(), [-1.5, 2.5]);
/// ```
///
/// # Panics
/// Panics on shapes that do not match, and on a backend whose feature of this crate is off.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let d = x.dims()[D - 1];
    let sizes = [gamma.dims(), beta.dims()];
    assert_eq!(sizes, [[d], [d]], "scale and shift for {d} features");
    Tensor::from_dispatch(<Dispatch as LayerNormOps>::norm_rows(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ))
}
