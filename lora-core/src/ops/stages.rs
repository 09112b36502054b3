//! Sums and maxima of many values in stages.
//!
//! A fixed kernel of a GPU backend reduces a row in one loop. Mesa's llvmpipe, which is software Vulkan, ends the loops of a kernel
//! after 65,535 turns in all, without an error: the sum of a longer row is wrong. Where kernels are fixed, each stage is shorter.

use super::prelude::*;
use super::tuning::is_fixed;
use burn::tensor::{Slice, Tensor};
use std::ops::Range;

/// Number of values that one loop reduces at most. A kernel that several operations are fused to has a handful of loops.
const STAGE: usize = 1 << 13;

/// Returns the parts of an axis that are reduced one by one.
pub(super) fn stages(length: usize) -> impl Iterator<Item = Range<usize>> {
    let stage = if is_fixed() { STAGE } else { length.max(1) };
    parts(length, stage)
}

fn parts(length: usize, stage: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length)
        .step_by(stage)
        .map(move |start| start..length.min(start + stage))
}

/// Reduces each row by a reduction that may be applied to its own results, such as a sum.
///
/// # Shapes
/// - `all`: `[rows, n]`
/// - returns `[rows, 1]`
pub(super) fn reduce_rows<B: Backend>(
    all: FloatTensor<B>,
    reduce: impl Fn(FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let [rows, n] = all.shape().dims();
    if stages(n).count() < 2 {
        return reduce(all);
    }
    let part = |range: Range<usize>| {
        let range = [Slice::from(0..rows), Slice::from(range)];
        reduce(B::float_slice(all.clone(), &range))
    };
    reduce_rows::<B>(B::float_cat(stages(n).map(part).collect(), 1), reduce)
}

/// Computes the sum of all values of a tensor, `[1]`, on any device: [`Tensor::sum`] of a large tensor is wrong on software
/// Vulkan.
pub fn sum_of_all<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let n = tensor.shape().num_elements();
    if stages(n).count() < 2 {
        return tensor.sum();
    }
    let (rows, flat) = (n / STAGE, tensor.reshape([n]));
    let whole = flat.clone().narrow(0, 0, rows * STAGE);
    let mut sums = vec![whole.reshape([rows, STAGE]).sum_dim(1).reshape([rows])];
    if rows * STAGE < n {
        sums.push(flat.narrow(0, rows * STAGE, n - rows * STAGE).sum());
    }
    sum_of_all(Tensor::cat(sums, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_an_axis_once() {
        let found: Vec<_> = parts(20, 8).collect();
        assert_eq!(found, [0..8, 8..16, 16..20]);
        assert_eq!(parts(16, 8).count(), 2);
        assert_eq!(parts(0, 8).count(), 0);
    }
}
