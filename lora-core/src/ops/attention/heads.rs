//! Where the heads of a tensor lie in memory.

use crate::ops::gemm::{Matrix, MatrixMut};
use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// A tensor `[batch, heads, seq, d]` that is read a head at a time.
pub(super) struct Heads<'a> {
    values: &'a [f32],
    shape: [usize; 4],
    strides: [usize; 4],
}

impl<'a> Heads<'a> {
    /// # Panics
    /// If the tensor runs backwards through its memory.
    pub(super) fn of(tensor: &'a FloatTensor<Flex>) -> Self {
        let layout = tensor.layout();
        let strides = [0, 1, 2, 3].map(|axis| {
            usize::try_from(layout.strides()[axis]).expect("no axis is reversed in a head")
        });
        Self {
            values: &tensor.storage::<f32>()[layout.start_offset()..],
            shape: tensor.shape().dims(),
            strides,
        }
    }

    pub(super) fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// Places of a head, `[places, d]`.
    pub(super) fn tile(&self, row: usize, head: usize, places: &Range<usize>) -> Matrix<'a> {
        let start = row * self.strides[0] + head * self.strides[1];
        let ([_, _, seq, d], [_, _, down, right]) = (self.shape, self.strides);
        Matrix::strided(&self.values[start..], [seq, d], [down, right])
            .rows(places.start, places.len())
    }
}

/// What is added to the scores, each axis once or as often as theirs.
pub(super) struct Bias {
    tensor: FloatTensor<Flex>,
    /// From a row of the batch, a head and a query to the next.
    strides: [usize; 3],
}

impl Bias {
    /// `None` where it is the same for all keys of a query, as that changes nothing.
    pub(super) fn new(tensor: &FloatTensor<Flex>, keys: usize) -> Option<Self> {
        let shape: [usize; 4] = tensor.shape().dims();
        if shape[3] != keys || keys == 1 {
            return None;
        }
        let whole = [shape[1] * shape[2] * keys, shape[2] * keys, keys];
        Some(Self {
            tensor: tensor.to_contiguous(),
            strides: [0, 1, 2].map(|axis| if shape[axis] == 1 { 0 } else { whole[axis] }),
        })
    }

    /// The rows of a head.
    pub(super) fn tile(&self, row: usize, head: usize) -> BiasRows<'_> {
        let start = row * self.strides[0] + head * self.strides[1];
        BiasRows {
            values: &self.tensor.storage::<f32>()[start..],
            stride: self.strides[2],
        }
    }
}

/// Of one head, a row for each query, or one for all.
#[derive(Clone, Copy)]
pub(super) struct BiasRows<'a> {
    values: &'a [f32],
    stride: usize,
}

impl<'a> BiasRows<'a> {
    /// From the first key on.
    pub(super) fn row(self, query: usize) -> &'a [f32] {
        &self.values[query * self.stride..]
    }
}

/// Room for `[batch, seq, heads, d]`, written by several threads, a head each.
pub(super) struct Tiles<'a> {
    target: *mut f32,
    shape: [usize; 4],
    memory: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: it is only written through tiles, which do not overlap.
unsafe impl Sync for Tiles<'_> {}

impl<'a> Tiles<'a> {
    /// The room of a vector.
    ///
    /// # Panics
    /// If it has not that much.
    pub(super) fn of(room: &'a mut Vec<f32>, shape: [usize; 4]) -> Self {
        let room = &mut room.spare_capacity_mut()[..shape.iter().product()];
        Self {
            target: room.as_mut_ptr().cast(),
            shape,
            memory: PhantomData,
        }
    }

    /// Places of a head, `[places, d]`.
    ///
    /// # Safety
    /// Each place of a head is asked for once.
    pub(super) unsafe fn tile(
        &self,
        row: usize,
        head: usize,
        places: Range<usize>,
    ) -> MatrixMut<'a> {
        let [batch, seq, heads, d] = self.shape;
        assert!(row < batch && head < heads && places.start <= places.end && places.end <= seq);
        let start = ((row * seq + places.start) * heads + head) * d;
        let start = self.target.wrapping_add(start);
        // SAFETY: it lies within the room, and no other tile reaches there.
        unsafe { MatrixMut::strided(start, [places.len(), d], heads * d) }
    }
}
