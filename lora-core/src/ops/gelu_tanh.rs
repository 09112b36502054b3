//! GELU by the hyperbolic tangent (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2), GPT-2's `gelu_new`.
//!
//! `½ x (1 + tanh u)` with `u = √(2/π) (x + 0.044715 x³)`, written as `x s` with `s = sigmoid(2u)`, which is the same and takes
//! one exponential. Its derivative is `s + x s (1 - s) 2u'` with `2u' = 2 √(2/π) (1 + 3 · 0.044715 x²)`. Burn's own takes
//! the cube by a power and keeps four intermediate results; here `x` alone stays for the backward pass.

use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};

/// `2 √(2/π)`: FRAC_2_SQRT_PI is 2/√π.
const SLOPE: f64 = FRAC_2_SQRT_PI * SQRT_2;
const CUBIC: f64 = 0.044715;

/// What a backend does for GELU by tanh.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "fusion"),
    Autodiff,
)]
pub trait GeluTanhOps: Backend {
    /// `x s` of each element.
    #[fusion(default)]
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (share, _) = share::<Self>(x.clone());
        Self::float_mul(x, share)
    }

    /// `g (s + x s (1 - s) 2u')`.
    #[fusion(default)]
    fn gelu_tanh_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        composed_backward::<Self>(x, grad)
    }
}

/// `s`, and `x²`.
fn share<B: Backend>(x: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let square = B::float_mul(x.clone(), x.clone());
    let slope = B::float_mul_scalar(square.clone(), (SLOPE * CUBIC).into());
    let slope = B::float_add_scalar(slope, SLOPE.into());
    (B::sigmoid(B::float_mul(slope, x)), square)
}

fn composed_backward<B: Backend>(x: FloatTensor<B>, grad: FloatTensor<B>) -> FloatTensor<B> {
    // Beyond it the derivative is 0 or 1, and the square would overflow before the product is zero.
    let x = B::float_clamp(x, (-20.0).into(), 20.0.into());
    let (share, square) = share::<B>(x.clone());
    let slope = B::float_mul_scalar(square, (3.0 * SLOPE * CUBIC).into());
    let slope = B::float_mul(B::float_add_scalar(slope, SLOPE.into()), x);
    let rest = B::float_add_scalar(B::float_neg(share.clone()), 1.0.into());
    let slope = B::float_add_scalar(B::float_mul(slope, rest), 1.0.into());
    B::float_mul(grad, B::float_mul(share, slope))
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, GeluTanhOps, composed_backward, share};
    use crate::ops::{kernels, whole::whole};
    use burn::backend::ops::FloatTensorOps;
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::{DType, TensorData};

    impl GeluTanhOps for Flex {
        fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
            if x.dtype() != DType::F32 {
                let (share, _) = share::<Self>(x.clone());
                return Self::float_mul(x, share);
            }
            let x = whole(x);
            let y = kernels::gelu_tanh(x.storage::<f32>());
            FloatTensor::<Self>::from_data(TensorData::new(y, x.shape()))
        }

        fn gelu_tanh_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
            if x.dtype() != DType::F32 || grad.dtype() != x.dtype() {
                return composed_backward::<Self>(x, grad);
            }
            let (x, mut grad) = (whole(x), whole(grad));
            kernels::gelu_tanh_backward(x.storage::<f32>(), grad.storage_mut::<f32>());
            grad
        }
    }
}

#[cfg(feature = "ndarray")]
impl GeluTanhOps for burn::backend::NdArray {}

#[cfg(feature = "gpu")]
impl GeluTanhOps for burn_cubecl::CubeBackend {}

#[derive(Debug)]
struct GeluTanhBackward;

impl<B: Backend + GeluTanhOps> Backward<B, 1> for GeluTanhBackward {
    /// The input.
    type State = NodeId;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [node_x] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node_x {
            let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(ops.state);
            grads.register::<B>(node.id, B::gelu_tanh_backward(x, grad));
        }
    }
}

impl<B: Backend + GeluTanhOps, C: CheckpointStrategy> GeluTanhOps for Autodiff<B, C> {
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match GeluTanhBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let saved = prep.checkpoint(&x);
                let y = B::gelu_tanh(x.into_primitive());
                prep.finish(saved, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::gelu_tanh(x.into_primitive())),
        }
    }
}

/// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))` of each element.
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
/// On a backend whose feature of this crate is off.
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as GeluTanhOps>::gelu_tanh(x.into_dispatch()))
}
