//! Dropout whose mask is a function of a seed: it is not stored, but generated again in the backward pass.

use super::host::dropout_mask;
use super::prelude::*;
use burn::tensor::{Tensor, TensorData};

/// Dropout by a seed, on a backend.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "fusion"),
    Autodiff,
)]
pub trait DropoutOps: Backend {
    /// Computes `x ∘ M`: each element is zeroed with `probability`, in [0, 1), and otherwise divided by
    /// `1 - probability`. The mask is generated on the host.
    ///
    /// # Gradients
    /// `∂x = g ∘ M`.
    #[fusion(default)]
    fn drop_by_seed(x: FloatTensor<Self>, probability: f64, seed: u64) -> FloatTensor<Self> {
        composed::<Self>(x, probability, seed)
    }
}

fn composed<B: Backend>(x: FloatTensor<B>, probability: f64, seed: u64) -> FloatTensor<B> {
    let shape = x.shape();
    let mask = dropout_mask(shape.num_elements(), probability, seed);
    let mask = B::float_from_data(TensorData::new(mask, shape), &x.device());
    let mask = B::float_cast(mask, x.dtype().into());
    B::float_mul(x, mask)
}

#[cfg(feature = "flex")]
impl DropoutOps for burn::backend::Flex {
    fn drop_by_seed(x: FloatTensor<Self>, probability: f64, seed: u64) -> FloatTensor<Self> {
        use super::{contiguous::contiguous, kernels};
        if x.dtype() != burn::tensor::DType::F32 {
            return composed::<Self>(x, probability, seed);
        }
        let mut x = contiguous(x);
        if x.is_unique() {
            kernels::dropout_in_place(x.storage_mut::<f32>(), probability, seed);
            return x;
        }
        let dropped = kernels::dropout_copy(x.storage::<f32>(), probability, seed);
        FloatTensor::<Self>::from_data(TensorData::new(dropped, x.shape()))
    }
}

impl_composed!(DropoutOps);

#[derive(Debug)]
struct DropoutBackward;

impl<B: Backend + DropoutOps> Backward<B, 1> for DropoutBackward {
    type State = (f64, u64);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node_x] = ops.parents;
        let (probability, seed) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node_x {
            grads.register::<B>(node.id, B::drop_by_seed(grad, probability, seed));
        }
    }
}

impl<B: Backend + DropoutOps, C: CheckpointStrategy> DropoutOps for Autodiff<B, C> {
    fn drop_by_seed(x: FloatTensor<Self>, probability: f64, seed: u64) -> FloatTensor<Self> {
        let prepared = DropoutBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful();
        let y = B::drop_by_seed(x.into_primitive(), probability, seed);
        match prepared {
            OpsKind::Tracked(prep) => prep.finish((probability, seed), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Applies [`DropoutOps::drop_by_seed`] to a tensor.
pub(crate) fn drop_by_seed<const D: usize>(x: Tensor<D>, probability: f64, seed: u64) -> Tensor<D> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(<Dispatch as DropoutOps>::drop_by_seed(x, probability, seed))
}
