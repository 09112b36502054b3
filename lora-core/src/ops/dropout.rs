//! Dropout whose mask is a function of a seed: it is not stored, but generated again in the backward pass.

use super::host::dropout_mask;
use super::prelude::*;
use burn::tensor::{Tensor, TensorData};

backend_operations! {
    /// Dropout by a seed, on a backend.
    pub trait DropoutOps {
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
}

fn composed<B: Backend>(x: FloatTensor<B>, probability: f64, seed: u64) -> FloatTensor<B> {
    let mask = mask_like::<B>(&x, probability, seed);
    B::float_mul(x, mask)
}

/// Generates the mask in the shape and element type of a tensor.
pub(super) fn mask_like<B: Backend>(
    tensor: &FloatTensor<B>,
    probability: f64,
    seed: u64,
) -> FloatTensor<B> {
    let shape = tensor.shape();
    let mask = dropout_mask(shape.num_elements(), probability, seed);
    let mask = B::float_from_data(TensorData::new(mask, shape), &tensor.device());
    B::float_cast(mask, tensor.dtype().into())
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

impl<B: Backend + DropoutOps, C: CheckpointStrategy> DropoutOps for Autodiff<B, C> {
    fn drop_by_seed(x: FloatTensor<Self>, probability: f64, seed: u64) -> FloatTensor<Self> {
        let operation = Operation::<B, C, _, 1>::new([&x], |pass, grad, (probability, seed)| {
            pass.register(0, || B::drop_by_seed(grad, probability, seed));
        });
        let y = B::drop_by_seed(x.into_primitive(), probability, seed);
        operation.finish((probability, seed), y)
    }
}

/// Applies [`DropoutOps::drop_by_seed`] to a tensor.
pub(crate) fn drop_by_seed<const D: usize>(x: Tensor<D>, probability: f64, seed: u64) -> Tensor<D> {
    let x = x.into_dispatch();
    Tensor::from_dispatch(<Dispatch as DropoutOps>::drop_by_seed(x, probability, seed))
}
