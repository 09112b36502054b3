//! Two numbers of each row, kept from a forward to its backward pass.

use super::prelude::*;
use burn::tensor::Slice;

/// Returns the columns `[..., 1]` of two numbers of each row: the tensors themselves, or the columns of the first, if a kernel
/// keeps both in one tensor `[..., 2]`.
pub(super) fn columns<B: Backend>(
    first: FloatTensor<B>,
    second: FloatTensor<B>,
) -> [FloatTensor<B>; 2] {
    let shape = first.shape();
    let last = shape.num_dims() - 1;
    if shape[last] == 1 {
        return [first, second];
    }
    [0, 1].map(|index| {
        let mut slices: Vec<Slice> = shape.iter().map(|&size| Slice::from(0..size)).collect();
        slices[last] = Slice::from(index..index + 1);
        B::float_slice(first.clone(), &slices)
    })
}
