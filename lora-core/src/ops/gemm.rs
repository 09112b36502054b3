//! Matrix products in host memory, by the crate `gemm`, which Burn's CPU backend uses too.
//!
//! Burn's own product clears the output before it writes it, and cannot add to existing values.

#![expect(
    unsafe_code,
    reason = "the crate `gemm` takes pointers, and parts of a product are written by several threads"
)]

use burn::backend::{TensorMetadata, tensor::FloatTensor};
use gemm::Parallelism;
use rayon::prelude::*;
use std::marker::PhantomData;

/// View of a matrix in memory, with any strides.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Creates a view of values in row-major order.
    ///
    /// # Panics
    /// Panics unless there are `rows · columns` values.
    pub(super) fn new(values: &'a [f32], [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(values.len(), rows * columns);
        Self {
            values,
            shape: [rows, columns],
            strides: [columns, 1],
        }
    }

    /// Creates a view of a tensor with two axes in f32.
    ///
    /// # Panics
    /// Panics on other tensors, and on negative strides.
    pub(super) fn from_tensor(tensor: &'a FloatTensor<burn::backend::Flex>) -> Self {
        let (values, shape, strides) = strided_values(tensor);
        Self::strided(values, shape, strides)
    }

    /// Creates a view with strides.
    ///
    /// # Panics
    /// Panics if an element lies outside of the values.
    pub(super) fn strided(values: &'a [f32], shape: [usize; 2], strides: [usize; 2]) -> Self {
        if shape.iter().all(|&size| size > 0) {
            let last: usize = (0..2).map(|axis| (shape[axis] - 1) * strides[axis]).sum();
            assert!(last < values.len(), "a matrix outside of its memory");
        }
        Self {
            values,
            shape,
            strides,
        }
    }

    pub(super) fn shape(self) -> [usize; 2] {
        self.shape
    }

    pub(super) fn transposed(self) -> Self {
        let ([rows, columns], [down, right]) = (self.shape, self.strides);
        Self {
            values: self.values,
            shape: [columns, rows],
            strides: [right, down],
        }
    }

    /// Returns row `index` of a matrix with contiguous rows.
    pub(super) fn row(self, index: usize) -> &'a [f32] {
        assert!(self.strides[1] == 1 && index < self.shape[0]);
        &self.values[index * self.strides[0]..][..self.shape[1]]
    }

    /// Returns `count` columns from `start` on.
    pub(super) fn columns(self, start: usize, count: usize) -> Self {
        self.transposed().rows(start, count).transposed()
    }

    /// Returns `count` rows from `start` on.
    pub(super) fn rows(self, start: usize, count: usize) -> Self {
        assert!(start <= self.shape[0] && count <= self.shape[0] - start);
        let from = (start * self.strides[0]).min(self.values.len());
        Self::strided(&self.values[from..], [count, self.shape[1]], self.strides)
    }
}

/// Returns the memory of a tensor in f32 from its first element on, its shape and its strides.
///
/// # Panics
/// Panics on other tensors, and on negative strides.
pub(super) fn strided_values<const D: usize>(
    tensor: &FloatTensor<burn::backend::Flex>,
) -> (&[f32], [usize; D], [usize; D]) {
    let layout = tensor.layout();
    let strides = std::array::from_fn(|axis| {
        usize::try_from(layout.strides()[axis]).expect("a tensor without negative strides")
    });
    let values = &tensor.storage::<f32>()[layout.start_offset()..];
    (values, tensor.shape().dims(), strides)
}

/// Mutable view of a matrix with contiguous rows.
pub(super) struct MatrixMut<'a> {
    target: *mut f32,
    shape: [usize; 2],
    /// Distance from one row to the next.
    stride: usize,
    memory: PhantomData<&'a mut [f32]>,
}

// SAFETY: the view has exclusive access to its memory, like a mutable slice.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// Creates a view with a row stride.
    ///
    /// # Safety
    /// All elements lie in one allocation, and nothing else accesses them during `'a`.
    pub(super) unsafe fn strided(target: *mut f32, shape: [usize; 2], stride: usize) -> Self {
        Self {
            target,
            shape,
            stride,
            memory: PhantomData,
        }
    }

    /// Returns `count` rows from `start` on.
    pub(super) fn rows(&mut self, start: usize, count: usize) -> MatrixMut<'_> {
        assert!(start <= self.shape[0] && count <= self.shape[0] - start);
        MatrixMut {
            target: self.target.wrapping_add(start * self.stride),
            shape: [count, self.shape[1]],
            stride: self.stride,
            memory: PhantomData,
        }
    }

    /// Returns row `index`.
    ///
    /// # Safety
    /// The row has been written.
    pub(super) unsafe fn row(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.shape[0]);
        let start = self.target.wrapping_add(index * self.stride);
        // SAFETY: the row lies within the matrix and is initialized.
        unsafe { std::slice::from_raw_parts_mut(start, self.shape[1]) }
    }

    /// Copies the values into the first row and fills the rest of it with zeros.
    ///
    /// # Panics
    /// Panics if there are more values than columns.
    pub(super) fn fill(&mut self, values: &[f32]) {
        let [rows, columns] = self.shape;
        assert!(rows > 0 && values.len() <= columns);
        let (from, count) = (values.as_ptr(), values.len());
        // SAFETY: the values are no more than the columns of the row, which lies within the matrix, to which the view has exclusive
        // access.
        unsafe { self.target.copy_from_nonoverlapping(from, count) };
        let behind = self.target.wrapping_add(count);
        // SAFETY: the rest of the same row.
        unsafe { behind.write_bytes(0, columns - count) };
    }

    /// Writes `factor · lhs · rhs` to the matrix, on the calling thread.
    pub(super) fn write(&mut self, factor: f32, lhs: Matrix<'_>, rhs: Matrix<'_>) {
        // SAFETY: the existing values are not read.
        unsafe { self.multiply(false, factor, lhs, rhs, 1) }
    }

    /// Writes or adds `factor · lhs · rhs`, on up to `threads` threads.
    ///
    /// # Safety
    /// If `add`, the whole matrix has been written.
    pub(super) unsafe fn multiply(
        &mut self,
        add: bool,
        factor: f32,
        lhs: Matrix<'_>,
        rhs: Matrix<'_>,
        threads: usize,
    ) {
        let ([rows, inner], [height, columns]) = (lhs.shape, rhs.shape);
        assert_eq!(inner, height, "{rows} × {inner} times {height} × {columns}");
        assert_eq!(self.shape, [rows, columns], "the output of a product");
        // Columns are split first: each thread then packs its own columns of a weight only.
        let across = threads.min(columns.div_ceil(MIN_PART));
        let down = (threads / across).clamp(1, rows.div_ceil(MIN_PART));
        let (width, height) = (
            columns.div_ceil(across).next_multiple_of(ALIGNED),
            rows.div_ceil(down),
        );
        let shared = SharedTarget(self.target);
        let part = |index: usize| {
            let (top, left) = (index / across * height, index % across * width);
            if top >= rows || left >= columns {
                return;
            }
            let (count, size) = (height.min(rows - top), width.min(columns - left));
            let target = shared.at(top * self.stride + left);
            // SAFETY: inputs and output lie within their memory, and the parts do not overlap.
            unsafe {
                serial_product(
                    target,
                    self.stride,
                    add,
                    factor,
                    lhs.rows(top, count),
                    rhs.columns(left, size),
                );
            }
        };
        match across * down {
            1 => part(0),
            parts => (0..parts).into_par_iter().for_each(part),
        }
    }
}

/// Smallest number of columns or rows in a part.
const MIN_PART: usize = 96;
/// Columns of a part are a multiple of this: a multiple of the register width.
const ALIGNED: usize = 16;

/// Output of a product, shared by threads that write disjoint parts.
#[derive(Clone, Copy)]
struct SharedTarget(*mut f32);

// SAFETY: the parts do not overlap.
unsafe impl Sync for SharedTarget {}

impl SharedTarget {
    fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// Computes a product on the calling thread.
///
/// # Safety
/// The shapes match, the output lies in valid memory, and it is initialized if `add`.
unsafe fn serial_product(
    target: *mut f32,
    stride: usize,
    add: bool,
    factor: f32,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
) {
    let ([rows, inner], [_, columns]) = (lhs.shape, rhs.shape);
    let [lhs_down, lhs_right] = lhs.strides.map(|stride| stride as isize);
    let [rhs_down, rhs_right] = rhs.strides.map(|stride| stride as isize);
    // SAFETY: see the function's contract.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            target,
            1,
            stride as isize,
            add,
            lhs.values.as_ptr(),
            lhs_right,
            lhs_down,
            rhs.values.as_ptr(),
            rhs_right,
            rhs_down,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Products with fewer multiplications run on one thread: they end before a second one wakes up.
const SERIAL_BELOW: usize = 1 << 20;

/// Returns the number of threads for `lhs · rhs`: all threads if the product is large enough.
pub(super) fn threads(lhs: Matrix<'_>, rhs: Matrix<'_>) -> usize {
    let [rows, inner] = lhs.shape;
    if rows * rhs.shape[1] * inner < SERIAL_BELOW {
        1
    } else {
        rayon::current_num_threads()
    }
}

/// Appends `lhs · rhs` in row-major order to a vector, and returns the appended values.
///
/// # Panics
/// Panics if the shapes do not match.
pub(super) fn append_product<'a>(
    out: &'a mut Vec<f32>,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
) -> &'a mut [f32] {
    let shape = [lhs.shape[0], rhs.shape[1]];
    let (start, size) = (out.len(), shape.iter().product());
    out.reserve(size);
    let target = out.spare_capacity_mut().as_mut_ptr().cast();
    // SAFETY: the rows cover the reserved memory.
    let mut product = unsafe { MatrixMut::strided(target, shape, shape[1]) };
    // SAFETY: the existing values are not read.
    unsafe { product.multiply(false, 1.0, lhs, rhs, threads(lhs, rhs)) };
    // SAFETY: the product has written all of the reserved memory.
    unsafe { out.set_len(start + size) };
    &mut out[start..]
}

/// Adds `factor · lhs · rhs` to a matrix in row-major order.
///
/// # Panics
/// Panics if the shapes do not match.
pub(super) fn add_product(sum: &mut [f32], factor: f32, lhs: Matrix<'_>, rhs: Matrix<'_>) {
    let [rows, columns] = [lhs.shape[0], rhs.shape[1]];
    assert_eq!(sum.len(), rows * columns, "a sum of {rows} × {columns}");
    // SAFETY: the rows cover `sum`.
    let mut sum = unsafe { MatrixMut::strided(sum.as_mut_ptr(), [rows, columns], columns) };
    // SAFETY: it is initialized.
    unsafe { sum.multiply(true, factor, lhs, rhs, threads(lhs, rhs)) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_row_is_filled_with_no_more_values_than_it_has_columns() {
        let mut memory = [7.0; 8];
        // SAFETY: two rows of four columns are the memory.
        let mut matrix = unsafe { MatrixMut::strided(memory.as_mut_ptr(), [2, 3], 4) };
        matrix.fill(&[1.0, 2.0]);
        for misuse in [
            &|matrix: &mut MatrixMut<'_>| matrix.fill(&[9.0; 4]),
            &|matrix: &mut MatrixMut<'_>| {
                matrix.rows(usize::MAX, 2);
            },
        ] as [&dyn Fn(&mut MatrixMut<'_>); 2]
        {
            assert!(catch_unwind(AssertUnwindSafe(|| misuse(&mut matrix))).is_err());
        }
        assert_eq!(memory, [1.0, 2.0, 0.0, 7.0, 7.0, 7.0, 7.0, 7.0]);
    }
}
