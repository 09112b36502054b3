//! Memory layout of attention heads.

#![expect(
    unsafe_code,
    reason = "output memory that several threads write in disjoint tiles"
)]

use crate::ops::gemm::{Matrix, MatrixMut, strided_values};
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{Shape, TensorData};
use std::ops::Range;

/// View of a tensor `[batch, heads, seq, d]`, read head by head.
pub(super) struct Heads<'a> {
    values: &'a [f32],
    shape: [usize; 4],
    strides: [usize; 4],
}

impl<'a> Heads<'a> {
    /// Creates the view.
    ///
    /// # Panics
    /// Panics if the tensor has a negative stride.
    pub(super) fn new(tensor: &'a FloatTensor<Flex>) -> Self {
        let (values, shape, strides) = strided_values(tensor);
        Self {
            values,
            shape,
            strides,
        }
    }

    pub(super) fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Returns the positions `range` of a head, `[range, d]`.
    pub(super) fn tile(&self, row: usize, head: usize, range: &Range<usize>) -> Matrix<'a> {
        let start = row * self.strides[0] + head * self.strides[1];
        let ([_, _, seq, d], [_, _, down, right]) = (self.shape, self.strides);
        Matrix::strided(&self.values[start..], [seq, d], [down, right])
            .rows(range.start, range.len())
    }
}

/// Bias on the scores, broadcast over axes of size 1.
pub(super) struct Bias {
    tensor: FloatTensor<Flex>,
    /// Strides of batch row, head and query; 0 for broadcast axes.
    strides: [usize; 3],
    keys: usize,
}

impl Bias {
    /// Returns `None` if the bias is equal for all keys of a query, which has no effect on softmax.
    pub(super) fn new(tensor: &FloatTensor<Flex>, keys: usize) -> Option<Self> {
        let shape: [usize; 4] = tensor.shape().dims();
        if shape[3] != keys || keys == 1 {
            return None;
        }
        let full = [shape[1] * shape[2] * keys, shape[2] * keys, keys];
        Some(Self {
            tensor: tensor.to_contiguous(),
            strides: [0, 1, 2].map(|axis| if shape[axis] == 1 { 0 } else { full[axis] }),
            keys,
        })
    }

    /// Returns the bias of one head, `[queries, keys]`.
    pub(super) fn tile(&self, row: usize, head: usize, queries: usize) -> Matrix<'_> {
        let [rows, heads, down] = self.strides;
        let values = &self.tensor.storage::<f32>()[row * rows + head * heads..];
        Matrix::strided(values, [queries, self.keys], [down, 1])
    }
}

/// Output memory `[batch, seq, heads, d]`, written by several threads, each its own heads.
pub(super) struct Tiles {
    /// Without elements; its capacity is the memory.
    values: Vec<f32>,
    target: *mut f32,
    shape: [usize; 4],
}

// SAFETY: it is written only through tiles, which do not overlap.
unsafe impl Sync for Tiles {}

impl Tiles {
    /// Allocates the memory.
    pub(super) fn new(shape: [usize; 4]) -> Self {
        let mut values = Vec::with_capacity(shape.iter().product());
        let target = values.as_mut_ptr();
        Self {
            values,
            target,
            shape,
        }
    }

    /// Returns the positions `range` of a head, `[range, d]`.
    ///
    /// # Safety
    /// Each position of a head is requested at most once.
    pub(super) unsafe fn tile(
        &self,
        row: usize,
        head: usize,
        range: &Range<usize>,
    ) -> MatrixMut<'_> {
        let [batch, seq, heads, d] = self.shape;
        assert!(row < batch && head < heads && range.start <= range.end && range.end <= seq);
        let start = ((row * seq + range.start) * heads + head) * d;
        let start = self.target.wrapping_add(start);
        // SAFETY: the tile lies within the memory and overlaps no other tile.
        unsafe { MatrixMut::strided(start, [range.len(), d], heads * d) }
    }

    /// Returns the memory as a tensor of another shape with the same number of elements.
    ///
    /// # Safety
    /// All elements have been written.
    pub(super) unsafe fn into_tensor(mut self, shape: impl Into<Shape>) -> FloatTensor<Flex> {
        // SAFETY: the caller has written the elements, and the memory was allocated for as many.
        unsafe { self.values.set_len(self.shape.iter().product()) };
        FloatTensor::<Flex>::from_data(TensorData::new(self.values, shape))
    }

    /// Returns the memory as `[batch, heads, seq, d]`, whose heads join again without a copy.
    ///
    /// # Safety
    /// All elements have been written.
    pub(super) unsafe fn into_heads(self) -> FloatTensor<Flex> {
        let shape = self.shape;
        // SAFETY: the caller has written the elements.
        Flex::float_swap_dims(unsafe { self.into_tensor(shape) }, 1, 2)
    }
}
