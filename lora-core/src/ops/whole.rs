//! Tensors of the CPU backend as memory.

use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;

/// The tensor, its elements row after row and nothing else in its memory.
///
/// Burn's `to_contiguous` leaves the tensor it is called on alive: what is written to its result is copied first, even where
/// nobody else has it. Here the tensor is gone.
pub(super) fn whole(tensor: FloatTensor<Flex>) -> FloatTensor<Flex> {
    tensor.to_contiguous()
}

/// Whether the loops for the CPU can work on all of these: f32, not empty, and nothing backwards.
pub(super) fn are_simple(tensors: &[&FloatTensor<Flex>]) -> bool {
    let simple = |tensor: &&FloatTensor<Flex>| {
        tensor.dtype() == DType::F32
            && tensor.shape().num_elements() > 0
            && tensor.layout().has_positive_strides()
    };
    tensors.iter().all(simple)
}
