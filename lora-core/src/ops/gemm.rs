//! Products of matrices in host memory, by the crate that Burn's CPU backend uses too.
//!
//! Burn's own product clears its memory before it writes it, and cannot add to what is there.

use burn::backend::{TensorMetadata, tensor::FloatTensor};
use gemm::Parallelism;
use rayon::prelude::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A matrix in memory: neither its rows nor its columns need to lie together.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Row after row.
    ///
    /// # Panics
    /// If there are other than `rows · columns` values.
    pub(super) fn new(values: &'a [f32], [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(values.len(), rows * columns);
        Self {
            values,
            shape: [rows, columns],
            strides: [columns, 1],
        }
    }

    /// A tensor of two axes in f32, however it lies.
    ///
    /// # Panics
    /// If it is another, or runs backwards through its memory.
    pub(super) fn of(tensor: &'a FloatTensor<burn::backend::Flex>) -> Self {
        let layout = tensor.layout();
        let strides = [0, 1].map(|axis| {
            usize::try_from(layout.strides()[axis]).expect("no axis is reversed in a matrix")
        });
        let shape: [usize; 2] = tensor.shape().dims();
        let values = &tensor.storage::<f32>()[layout.start_offset()..];
        Self::strided(values, shape, strides)
    }

    /// # Panics
    /// If an element lies outside of the values.
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

    /// Row `index`, of a matrix whose rows lie together.
    pub(super) fn row(self, index: usize) -> &'a [f32] {
        assert!(self.strides[1] == 1 && index < self.shape[0]);
        &self.values[index * self.strides[0]..][..self.shape[1]]
    }

    /// `count` columns from `start` on.
    fn columns(self, start: usize, count: usize) -> Self {
        self.transposed().rows(start, count).transposed()
    }

    /// `count` rows from `start` on.
    pub(super) fn rows(self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.shape[0]);
        let from = (start * self.strides[0]).min(self.values.len());
        Self::strided(&self.values[from..], [count, self.shape[1]], self.strides)
    }
}

/// A matrix in memory that is written, or added to.
pub(super) struct MatrixMut<'a> {
    target: *mut f32,
    shape: [usize; 2],
    /// From one row to the next; a row lies together.
    stride: usize,
    memory: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is the only way to its memory for as long as it lives, like a slice.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// Row after row, of memory that need not hold anything yet.
    ///
    /// # Panics
    /// If there is other than room for `rows · columns` values.
    pub(super) fn new(room: &'a mut [MaybeUninit<f32>], [rows, columns]: [usize; 2]) -> Self {
        assert_eq!(room.len(), rows * columns, "room for {rows} × {columns}");
        // SAFETY: the rows are all of the room, borrowed as long.
        unsafe { Self::strided(room.as_mut_ptr().cast(), [rows, columns], columns) }
    }

    /// # Safety
    /// All elements lie in one piece of memory, in which nobody else reads or writes them for as long as `'a`.
    pub(super) unsafe fn strided(target: *mut f32, shape: [usize; 2], stride: usize) -> Self {
        Self {
            target,
            shape,
            stride,
            memory: PhantomData,
        }
    }

    /// `count` rows from `start` on.
    pub(super) fn rows(&mut self, start: usize, count: usize) -> MatrixMut<'_> {
        assert!(start + count <= self.shape[0]);
        MatrixMut {
            target: self.target.wrapping_add(start * self.stride),
            shape: [count, self.shape[1]],
            stride: self.stride,
            memory: PhantomData,
        }
    }

    /// Row `index`.
    ///
    /// # Safety
    /// It has been written.
    pub(super) unsafe fn row(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.shape[0]);
        // SAFETY: it lies within the matrix, and holds numbers.
        unsafe {
            let start = self.target.add(index * self.stride);
            std::slice::from_raw_parts_mut(start, self.shape[1])
        }
    }

    /// Copies the values into the first row, with zeros behind them.
    ///
    /// # Panics
    /// If there are more than columns.
    pub(super) fn fill(&mut self, values: &[f32]) {
        let [rows, columns] = self.shape;
        assert!(rows > 0);
        let behind = columns - values.len();
        // SAFETY: the row lies within the matrix, and nobody else can be reading it.
        unsafe {
            self.target
                .copy_from_nonoverlapping(values.as_ptr(), values.len());
            self.target.add(values.len()).write_bytes(0, behind);
        }
    }

    /// Writes `factor · lhs · rhs` here.
    pub(super) fn write(
        &mut self,
        factor: f32,
        lhs: Matrix<'_>,
        rhs: Matrix<'_>,
        threads: Threads,
    ) {
        // SAFETY: what is here is not read.
        unsafe { self.multiply(false, factor, lhs, rhs, threads) }
    }

    /// Adds `factor · lhs · rhs` to what is here.
    ///
    /// # Safety
    /// All of it has been written.
    pub(super) unsafe fn add(
        &mut self,
        factor: f32,
        lhs: Matrix<'_>,
        rhs: Matrix<'_>,
        threads: Threads,
    ) {
        // SAFETY: there are numbers here.
        unsafe { self.multiply(true, factor, lhs, rhs, threads) }
    }

    /// # Safety
    /// Where it adds, all of it has been written.
    unsafe fn multiply(
        &mut self,
        add: bool,
        factor: f32,
        lhs: Matrix<'_>,
        rhs: Matrix<'_>,
        threads: Threads,
    ) {
        let ([rows, inner], [height, columns]) = (lhs.shape, rhs.shape);
        assert_eq!(inner, height, "{rows} × {inner} times {height} × {columns}");
        assert_eq!(self.shape, [rows, columns], "the place of a product");
        let parts = match threads {
            Threads::One => 1,
            Threads::All if rows * columns * inner < ALONE => 1,
            Threads::All => rayon::current_num_threads(),
        };
        // Parts of the columns first: with its own columns of a weight, a thread packs them for itself alone.
        let across = parts.min(columns.div_ceil(LEAST));
        let down = (parts / across).clamp(1, rows.div_ceil(LEAST));
        let (width, height) = (
            columns.div_ceil(across).next_multiple_of(ALIGNED),
            rows.div_ceil(down),
        );
        let place = Place(self.target);
        let part = |index: usize| {
            let (top, left) = (index / across * height, index % across * width);
            if top >= rows || left >= columns {
                return;
            }
            let (count, size) = (height.min(rows - top), width.min(columns - left));
            let target = place.at(top * self.stride + left);
            // SAFETY: a matrix lies within its values, and so does the place; the parts do not overlap.
            unsafe {
                one_product(
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

/// Least columns or rows of a part.
const LEAST: usize = 96;
/// Columns of a part come in multiples of it: the registers' width, some times.
const ALIGNED: usize = 16;

/// Where threads write, each its own part.
#[derive(Clone, Copy)]
struct Place(*mut f32);

// SAFETY: the parts do not overlap.
unsafe impl Sync for Place {}

impl Place {
    fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// # Safety
/// There is room for the product, of numbers where they are read, and the shapes fit.
unsafe fn one_product(
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
    // SAFETY: as above.
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

/// Who multiplies.
#[derive(Clone, Copy)]
pub(super) enum Threads {
    /// The one that calls: the others are at other products.
    One,
    /// All of them, where there is enough to do.
    All,
}

/// Fewer multiplications than this are done before a second thread has woken up.
const ALONE: usize = 1 << 20;

/// Writes `lhs · rhs`, row after row, into all of `room`.
///
/// # Panics
/// If the shapes do not fit.
pub(super) fn product<'a>(
    room: &'a mut [MaybeUninit<f32>],
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
) -> &'a mut [f32] {
    let shape = [lhs.shape[0], rhs.shape[1]];
    MatrixMut::new(room, shape).write(1.0, lhs, rhs, Threads::All);
    // SAFETY: all of it has been written.
    unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), room.len()) }
}

/// Adds `factor · lhs · rhs` to a matrix that lies row after row.
///
/// # Panics
/// If the shapes do not fit.
pub(super) fn add_product(sum: &mut [f32], factor: f32, lhs: Matrix<'_>, rhs: Matrix<'_>) {
    let [rows, columns] = [lhs.shape[0], rhs.shape[1]];
    assert_eq!(sum.len(), rows * columns, "a sum of {rows} × {columns}");
    // SAFETY: the rows are all of the sum, which holds numbers.
    unsafe {
        let mut sum = MatrixMut::strided(sum.as_mut_ptr(), [rows, columns], columns);
        sum.add(factor, lhs, rhs, Threads::All);
    }
}
