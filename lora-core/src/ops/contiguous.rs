//! Tensors of the CPU backend as slices of memory.

use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;

/// Returns the tensor in row-major order, without gaps in its memory.
///
/// Burn's `to_contiguous` borrows its tensor: a write to the result then copies it first, even if there is no other owner.
/// This function consumes the tensor, so that the result can be written in place.
pub(super) fn contiguous(tensor: FloatTensor<Flex>) -> FloatTensor<Flex> {
    tensor.to_contiguous()
}

/// Returns true if the CPU loops support all tensors: f32, not empty, no negative stride.
pub(super) fn are_plain_f32(tensors: &[&FloatTensor<Flex>]) -> bool {
    let is_plain = |tensor: &&FloatTensor<Flex>| {
        tensor.dtype() == DType::F32
            && tensor.shape().num_elements() > 0
            && tensor.layout().has_positive_strides()
    };
    tensors.iter().all(is_plain)
}
