//! Products with a packed weight in host memory, unpacked part by part.

#![expect(
    unsafe_code,
    reason = "memory that is written in parallel and has no values before"
)]

use super::gemm::{Matrix, MatrixMut, threads};
use super::kernels::unpack_into;
use super::packed_format::PackedLayout;

/// Packed weight in host memory, `[d_in, d_out]`.
#[derive(Clone, Copy)]
pub(super) struct PackedMatrix<'a> {
    words: &'a [i32],
    scales: &'a [f32],
    layout: PackedLayout,
}

impl<'a> PackedMatrix<'a> {
    /// Creates a view of packed values with their scales, which floats of 16 bits do not have.
    pub(super) fn new(words: &'a [i32], scales: &'a [f32], layout: PackedLayout) -> Self {
        Self {
            words,
            scales,
            layout,
        }
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        [self.layout.d_in, self.layout.d_out]
    }

    /// Calls `use_part` with the first output of each part and its values, `[d_in, outputs]`.
    fn each_part(&self, mut use_part: impl FnMut(usize, Matrix<'_>)) {
        let mut values = Vec::new();
        for outputs in self.layout.parts() {
            let ([words, scales], part) =
                (self.layout.part(&outputs), self.layout.of_part(&outputs));
            let words = words.start..words.end.min(self.words.len());
            let scales = scales.start..scales.end.min(self.scales.len());
            let stored @ [rows, columns] = part.stored();
            unpack_into(
                &mut values,
                &self.words[words],
                &self.scales[scales],
                part.format,
                rows * columns,
            );
            let matrix = Matrix::new(&values, stored);
            let matrix = if part.transposed {
                matrix.transposed()
            } else {
                matrix
            };
            use_part(outputs.start, matrix);
        }
    }

    /// Appends `x W` in row-major order, and returns the appended values.
    pub(super) fn append_product<'o>(&self, out: &'o mut Vec<f32>, x: Matrix<'_>) -> &'o mut [f32] {
        let ([rows, _], d_out) = (x.shape(), self.layout.d_out);
        let (start, size) = (out.len(), rows * d_out);
        out.reserve(size);
        self.each_part(|first, part| {
            let shape = [rows, part.shape()[1]];
            let target = out.as_mut_ptr().wrapping_add(start + first);
            // SAFETY: the columns lie in the reserved memory.
            let mut product = unsafe { MatrixMut::strided(target, shape, d_out) };
            // SAFETY: the existing values are not read.
            unsafe { product.multiply(false, 1.0, x, part, threads(x, part)) };
        });
        // SAFETY: the parts cover all columns.
        unsafe { out.set_len(start + size) };
        &mut out[start..]
    }

    /// Appends `g Wᵀ` in row-major order. Several parts are summed one after another, so that the last bit of a sum may
    /// differ from that of one product.
    pub(super) fn append_product_transposed(&self, out: &mut Vec<f32>, g: Matrix<'_>) {
        let ([rows, _], d_in) = (g.shape(), self.layout.d_in);
        let (start, size) = (out.len(), rows * d_in);
        out.reserve(size);
        self.each_part(|first, part| {
            let g = g.columns(first, part.shape()[1]);
            let part = part.transposed();
            let target = out.as_mut_ptr().wrapping_add(start);
            // SAFETY: the rows cover the reserved memory.
            let mut sum = unsafe { MatrixMut::strided(target, [rows, d_in], d_in) };
            // SAFETY: the first part writes all of it, and only further ones add.
            unsafe { sum.multiply(first > 0, 1.0, g, part, threads(g, part)) };
        });
        // SAFETY: the first part has written all rows.
        unsafe { out.set_len(start + size) };
    }
}
