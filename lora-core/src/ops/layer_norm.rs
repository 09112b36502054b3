//! Layer normalisation over the last axis (Ba et al. 2016, arXiv 1607.06450).
//!
//! With the mean μ and the standard deviation σ of a row, `x̂ = (x - μ)/σ` and `y = γ x̂ + β`; σ² is the mean square with ε
//! added. Under autodiff Burn's falls into a dozen operations, each a pass over memory there and another back. Here the
//! backward pass has `x` and, of each row, μ and 1/σ; with the gradient g of y:
//!
//! - `∂x = (h - mean(h) - x̂ mean(h x̂))/σ` with `h = γ g`
//! - `∂γ = Σ g x̂`, `∂β = Σ g` over the rows, where they train

use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{
    Autodiff, Backend, Dispatch, TensorMetadata, backend_extension, tensor::FloatTensor,
};
use burn::tensor::{DType, Shape, Slice, Tensor};

/// What a backend does for layer normalisation.
///
/// # Shapes
/// - `x`, `grad`: `[rows, d]`; `gamma`, `beta`: `[d]`
/// - `statistics`: `[rows, 2]`, the mean of a row and one over its standard deviation
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "fusion"),
    Autodiff,
)]
pub trait LayerNormOps: Backend {
    /// `y`.
    #[fusion(default)]
    fn norm_rows(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        Self::norm_rows_forward(x, gamma, beta, epsilon).0
    }

    /// `y`, and the statistics.
    #[fusion(default)]
    fn norm_rows_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        composed_forward::<Self>(x, gamma, beta, epsilon)
    }

    /// `∂x`.
    #[fusion(default)]
    fn norm_rows_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        composed_backward::<Self>(x, gamma, statistics, grad)
    }

    /// `∂γ` and `∂β`.
    #[fusion(default)]
    fn norm_rows_affine_backward(
        x: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (dtype, [_, d]) = (x.dtype(), x.shape().dims());
        let (normal, _) = normalised::<Self>(x, statistics);
        let grad = Self::float_cast(grad, normal.dtype().into());
        let sum = |rows: FloatTensor<Self>| {
            let sum = Self::float_reshape(Self::float_sum_dim(rows, 0), Shape::new([d]));
            Self::float_cast(sum, dtype.into())
        };
        (sum(Self::float_mul(grad.clone(), normal)), sum(grad))
    }
}

/// Sums are taken in f32 at least.
fn wide<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => B::float_cast(tensor, DType::F32.into()),
        _ => tensor,
    }
}

/// `[d]` as `[1, d]`, in the type of `like`.
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
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = x.dtype();
    let x = wide::<B>(x);
    let mean = B::float_mean_dim(x.clone(), 1);
    let centred = B::float_sub(x, mean.clone());
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let deviation = B::float_sqrt(B::float_add_scalar(variance, epsilon.into()));
    let inverse = B::float_recip(deviation);
    let normal = B::float_mul(centred, inverse.clone());
    let (gamma, beta) = (as_row::<B>(gamma, &normal), as_row::<B>(beta, &normal));
    let y = B::float_add(B::float_mul(normal, gamma), beta);
    (
        B::float_cast(y, dtype.into()),
        B::float_cat(vec![mean, inverse], 1),
    )
}

/// `x̂`, and `1/σ` `[rows, 1]`.
fn normalised<B: Backend>(
    x: FloatTensor<B>,
    statistics: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [rows, _] = x.shape().dims();
    let column = |index: usize| {
        let slices = [Slice::from(0..rows), Slice::from(index..index + 1)];
        B::float_slice(statistics.clone(), &slices)
    };
    let centred = B::float_sub(wide::<B>(x), column(0));
    (B::float_mul(centred, column(1)), column(1))
}

fn composed_backward<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    statistics: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let (normal, inverse) = normalised::<B>(x, statistics);
    let h = B::float_cast(grad, normal.dtype().into());
    let h = B::float_mul(h, as_row::<B>(gamma, &normal));
    let along = B::float_mean_dim(B::float_mul(h.clone(), normal.clone()), 1);
    let centred = B::float_sub(h.clone(), B::float_mean_dim(h, 1));
    let rest = B::float_sub(centred, B::float_mul(normal, along));
    B::float_cast(B::float_mul(rest, inverse), dtype.into())
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, LayerNormOps, composed_backward, composed_forward};
    use crate::ops::kernels;
    use crate::ops::whole::{are_simple, whole};
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::TensorData;

    impl LayerNormOps for Flex {
        fn norm_rows_forward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            epsilon: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            if !are_simple(&[&x, &gamma, &beta]) {
                return composed_forward::<Self>(x, gamma, beta, epsilon);
            }
            let [rows, d] = x.shape().dims();
            let [x, gamma, beta] = [x, gamma, beta].map(whole);
            let (y, statistics) = kernels::norm_rows(
                x.storage::<f32>(),
                [gamma.storage::<f32>(), beta.storage::<f32>()],
                epsilon as f32,
            );
            (
                FloatTensor::<Self>::from_data(TensorData::new(y, [rows, d])),
                FloatTensor::<Self>::from_data(TensorData::new(statistics, [rows, 2])),
            )
        }

        fn norm_rows_backward(
            x: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            statistics: FloatTensor<Self>,
            grad: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            if !are_simple(&[&x, &gamma, &statistics, &grad]) {
                return composed_backward::<Self>(x, gamma, statistics, grad);
            }
            let [x, gamma, statistics, mut grad] = [x, gamma, statistics, grad].map(whole);
            kernels::norm_rows_backward(
                x.storage::<f32>(),
                gamma.storage::<f32>(),
                statistics.storage::<f32>(),
                grad.storage_mut::<f32>(),
            );
            grad
        }
    }
}

#[cfg(feature = "ndarray")]
impl LayerNormOps for burn::backend::NdArray {}

#[cfg(feature = "gpu")]
impl LayerNormOps for burn_cubecl::CubeBackend {}

#[derive(Debug)]
struct LayerNormBackward;

impl<B: Backend + LayerNormOps> Backward<B, 3> for LayerNormBackward {
    /// The input; the scale and the statistics.
    type State = (NodeId, FloatTensor<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let [node_x, node_gamma, node_beta] = ops.parents;
        let (x, gamma, statistics) = ops.state;
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
        if node_gamma.is_some() || node_beta.is_some() {
            let (of_gamma, of_beta) =
                B::norm_rows_affine_backward(x.clone(), statistics.clone(), grad.clone());
            for (node, gradient) in [(node_gamma, of_gamma), (node_beta, of_beta)] {
                if let Some(node) = node {
                    grads.register::<B>(node.id, gradient);
                }
            }
        }
        if let Some(node) = node_x {
            let gradient = B::norm_rows_backward(x, gamma, statistics, grad);
            grads.register::<B>(node.id, gradient);
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
        let prepared = LayerNormBackward
            .prepare::<C>([x.node(), gamma.node(), beta.node()])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prep) => {
                let input = prep.checkpoint(&x);
                let gamma = gamma.into_primitive();
                let (y, statistics) = B::norm_rows_forward(
                    x.into_primitive(),
                    gamma.clone(),
                    beta.into_primitive(),
                    epsilon,
                );
                prep.finish((input, gamma, statistics), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::norm_rows(
                x.into_primitive(),
                gamma.into_primitive(),
                beta.into_primitive(),
                epsilon,
            )),
        }
    }
}

/// `γ (x - μ)/σ + β` over the last axis, where σ² is its variance with `epsilon` added.
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
/// On shapes that do not fit, and on a backend whose feature of this crate is off.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let shape = x.shape();
    let d = shape[D - 1];
    let sizes = [gamma.dims(), beta.dims()];
    assert_eq!(sizes, [[d], [d]], "scale and shift for {d} features");
    let rows = shape.num_elements() / d.max(1);
    let y: Tensor<2> = Tensor::from_dispatch(<Dispatch as LayerNormOps>::norm_rows(
        x.reshape([rows, d]).into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        epsilon,
    ));
    y.reshape(shape)
}
