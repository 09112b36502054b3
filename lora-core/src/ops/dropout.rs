//! Dropout whose mask is a function of a seed: it is not stored, but generated again in the backward pass.

use super::host::{dropout_mask, is_host_backend};
use super::prelude::*;
use super::seeded_mask::SeededMask;
use burn::tensor::{Tensor, TensorData};

backend_operations! {
    /// Dropout by a seed, on a backend.
    pub trait DropoutOps {
        /// Computes `x ∘ M`: each element is zeroed with `probability`, in [0, 1), and otherwise divided by
        /// `1 - probability`. All backends draw the same mask.
        ///
        /// # Gradients
        /// `∂x = g ∘ M`.
        #[fusion(default)]
        fn drop_by_seed(x: FloatTensor<Self>, probability: f64, seed: u64) -> FloatTensor<Self> {
            composed::<Self>(x, SeededMask::new(probability, seed), 0)
        }
    }
}

/// Computes `x ∘ M`, where the first element of `x` has the index `first` in the mask.
pub(super) fn composed<B: Backend>(
    x: FloatTensor<B>,
    mask: SeededMask,
    first: usize,
) -> FloatTensor<B> {
    let (shape, device) = (x.shape(), x.device());
    if shape.num_elements() == 0 {
        return x;
    }
    if is_host_backend::<B>() {
        // One pass over memory, on all threads.
        let factors = dropout_mask(shape.num_elements(), mask, first);
        let factors = B::float_from_data(TensorData::new(factors, shape), &device);
        let factors = B::float_cast(factors, x.dtype().into());
        return B::float_mul(x, factors);
    }
    let dropped = mask.dropped::<B>(&shape, first, &device);
    let scaled = B::float_mul_scalar(x, f64::from(mask.kept()).into());
    B::float_mask_fill(scaled, dropped, 0.0.into())
}

#[cfg(feature = "flex")]
impl DropoutOps for burn::backend::Flex {
    fn drop_by_seed(x: FloatTensor<Self>, probability: f64, seed: u64) -> FloatTensor<Self> {
        use super::{contiguous::contiguous, kernels};
        let mask = SeededMask::new(probability, seed);
        if x.dtype() != burn::tensor::DType::F32 {
            return composed::<Self>(x, mask, 0);
        }
        let mut x = contiguous(x);
        if x.is_unique() {
            kernels::dropout_in_place(x.storage_mut::<f32>(), mask);
            return x;
        }
        let dropped = kernels::dropout_copy(x.storage::<f32>(), mask);
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
