//! GELU by the error function, `x Φ(x)` (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2).
//!
//! Burn's own on the CPU takes the error function a number at a time on one core, in the forward pass and again in
//! the backward one: a sixth of a step of a small BERT. Here it is a rational function, on all
//! threads; other backends keep their own forward pass.

use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::Tensor;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// What a backend does for GELU.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "fusion"),
    Autodiff,
)]
pub trait GeluOps: Backend {
    /// `x Φ(x)` of each element.
    ///
    /// # Gradients
    /// `∂x = g (Φ(x) + x φ(x))`, from `x` alone.
    #[fusion(default)]
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::gelu(x)
    }

    /// `g (Φ(x) + x φ(x))`.
    ///
    /// Not Burn's own `gelu_backward`: its default is the derivative of the approximation by tanh, which is off
    /// by some 1e-4.
    #[fusion(default)]
    fn exact_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        let erf = Self::float_erf(Self::float_mul_scalar(x.clone(), FRAC_1_SQRT_2.into()));
        let cdf = Self::float_mul_scalar(Self::float_add_scalar(erf, 1.0.into()), 0.5.into());
        let square = Self::float_mul(x.clone(), x.clone());
        let power = Self::float_exp(Self::float_mul_scalar(square, (-0.5).into()));
        let density = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 / 2.0;
        let pdf = Self::float_mul_scalar(power, density.into());
        Self::float_mul(grad, Self::float_add(cdf, Self::float_mul(x, pdf)))
    }
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, GeluOps};
    use crate::ops::{kernels, whole::whole};
    use burn::backend::Flex;
    use burn::backend::ops::ActivationOps;
    use burn::tensor::{DType, TensorData};

    impl GeluOps for Flex {
        fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
            if x.dtype() != DType::F32 {
                return <Self as ActivationOps<Self>>::gelu(x);
            }
            let x = x.to_contiguous();
            let y = kernels::gelu(x.storage::<f32>());
            FloatTensor::<Self>::from_data(TensorData::new(y, x.layout().shape().clone()))
        }

        fn exact_gelu_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
            if x.dtype() != DType::F32 || grad.dtype() != x.dtype() {
                return <Self as ActivationOps<Self>>::gelu_backward(x, grad);
            }
            let (x, mut grad) = (whole(x), whole(grad));
            kernels::gelu_backward(x.storage::<f32>(), grad.storage_mut::<f32>());
            grad
        }
    }
}

#[cfg(feature = "ndarray")]
impl GeluOps for burn::backend::NdArray {}

#[cfg(feature = "gpu")]
impl GeluOps for burn_cubecl::CubeBackend {}

#[derive(Debug)]
struct GeluBackward;

impl<B: Backend + GeluOps> Backward<B, 1> for GeluBackward {
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
            grads.register::<B>(node.id, B::exact_gelu_backward(x, grad));
        }
    }
}

impl<B: Backend + GeluOps, C: CheckpointStrategy> GeluOps for Autodiff<B, C> {
    fn exact_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match GeluBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let saved = prep.checkpoint(&x);
                let y = B::exact_gelu(x.into_primitive());
                prep.finish(saved, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::exact_gelu(x.into_primitive())),
        }
    }
}

/// `x Φ(x)` of each element.
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
/// On a backend whose feature of this crate is off.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as GeluOps>::exact_gelu(x.into_dispatch()))
}
