//! Normalization of rows.

#![expect(
    unsafe_code,
    reason = "memory that is written in parallel and has no values before"
)]

use super::rows::{LANES, dot, rows_at_once, sum_map};
use pulp::Arch;
use rayon::prelude::*;
use std::convert::identity;

/// Normalizes, scales and shifts rows. Also returns mean and inverse standard deviation of each row.
///
/// # Panics
/// Panics if scale and shift differ in length, or the values are no whole rows.
pub(in crate::ops) fn norm_rows(
    values: &[f32],
    [gamma, beta]: [&[f32]; 2],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>) {
    let width = gamma.len();
    // What is not written below would be uninitialized memory.
    assert!(
        width > 0 && beta.len() == width && values.len().is_multiple_of(width),
        "scale and shift of {width} and {} features for {} values",
        beta.len(),
        values.len()
    );
    let at_once = rows_at_once(width);
    let mut normal = Vec::with_capacity(values.len());
    let mut statistics = vec![0.0; 2 * values.len() / width];
    let pieces = normal.spare_capacity_mut()[..values.len()].par_chunks_mut(at_once * width);
    let pieces = pieces.zip(values.par_chunks(at_once * width));
    let pieces = pieces.zip(statistics.par_chunks_mut(2 * at_once));
    pieces.for_each(|((normal, values), statistics)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let rows = normal
                    .chunks_exact_mut(width)
                    .zip(values.chunks_exact(width));
                for ((normal, row), statistics) in rows.zip(statistics.as_chunks_mut::<2>().0) {
                    let mean = sum_map(row, identity) / width as f32;
                    let square = |x: f32| (x - mean) * (x - mean);
                    let variance = sum_map(row, square) / width as f32;
                    let inverse = 1.0 / (variance + epsilon).sqrt();
                    *statistics = [mean, inverse];
                    let affine = row.iter().zip(gamma).zip(beta);
                    for (y, ((&x, gamma), beta)) in normal.iter_mut().zip(affine) {
                        y.write((x - mean) * inverse * gamma + beta);
                    }
                }
            },
        );
    });
    // SAFETY: the pieces cover all values, and each row is written: as checked, these are whole rows, and `beta` is as long.
    unsafe { normal.set_len(values.len()) };
    (normal, statistics)
}

/// Replaces the gradient of the output of [`norm_rows`] by that of its input.
pub(in crate::ops) fn norm_rows_backward(
    values: &[f32],
    gamma: &[f32],
    statistics: &[f32],
    grads: &mut [f32],
) {
    let width = gamma.len();
    let at_once = rows_at_once(width);
    let pieces = grads.par_chunks_mut(at_once * width);
    let pieces = pieces.zip(values.par_chunks(at_once * width));
    let pieces = pieces.zip(statistics.par_chunks(2 * at_once));
    pieces.for_each(|((grads, values), statistics)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let rows = grads
                    .chunks_exact_mut(width)
                    .zip(values.chunks_exact(width));
                for ((grads, row), statistics) in rows.zip(statistics.as_chunks::<2>().0) {
                    norm_row_backward(row, gamma, *statistics, grads);
                }
            },
        );
    });
}

#[inline(always)]
fn norm_row_backward(row: &[f32], gamma: &[f32], [mean, inverse]: [f32; 2], grads: &mut [f32]) {
    let width = row.len() as f32;
    let (mut sums, mut along) = ([0.0f32; LANES], [0.0f32; LANES]);
    let (grad_wide, grad_rest) = grads.as_chunks_mut::<LANES>();
    let (row_wide, row_rest) = row.as_chunks::<LANES>();
    let (gamma_wide, gamma_rest) = gamma.as_chunks::<LANES>();
    for ((grads, row), gamma) in grad_wide.iter_mut().zip(row_wide).zip(gamma_wide) {
        for lane in 0..LANES {
            grads[lane] *= gamma[lane];
            sums[lane] += grads[lane];
            along[lane] += grads[lane] * (row[lane] - mean);
        }
    }
    for ((grad, x), gamma) in grad_rest.iter_mut().zip(row_rest).zip(gamma_rest) {
        *grad *= gamma;
        sums[0] += *grad;
        along[0] += *grad * (x - mean);
    }
    let sum = sums.iter().sum::<f32>() / width;
    let along = along.iter().sum::<f32>() * inverse * inverse / width;
    for (grad, x) in grads.iter_mut().zip(row) {
        *grad = inverse * (*grad - sum - (x - mean) * along);
    }
}

/// Divides rows by their root mean square and scales them. Also returns the inverse root mean square of each row.
///
/// # Panics
/// Panics if the values are no whole rows.
pub(in crate::ops) fn rms_rows(
    values: &[f32],
    gamma: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>) {
    let width = gamma.len();
    // What is not written below would be uninitialized memory.
    assert!(
        width > 0 && values.len().is_multiple_of(width),
        "scale of {width} features for {} values",
        values.len()
    );
    let at_once = rows_at_once(width);
    let mut normal = Vec::with_capacity(values.len());
    let mut inverses = vec![0.0; values.len() / width];
    let pieces = normal.spare_capacity_mut()[..values.len()].par_chunks_mut(at_once * width);
    let pieces = pieces.zip(values.par_chunks(at_once * width));
    let pieces = pieces.zip(inverses.par_chunks_mut(at_once));
    pieces.for_each(|((normal, values), inverses)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let rows = normal
                    .chunks_exact_mut(width)
                    .zip(values.chunks_exact(width));
                for ((normal, row), inverse) in rows.zip(inverses) {
                    let square = sum_map(row, |x| x * x) / width as f32;
                    *inverse = 1.0 / (square + epsilon).sqrt();
                    for (y, (&x, gamma)) in normal.iter_mut().zip(row.iter().zip(gamma)) {
                        y.write(x * *inverse * gamma);
                    }
                }
            },
        );
    });
    // SAFETY: the pieces cover all values, and each row is written: as checked, these are whole rows of the length of `gamma`.
    unsafe { normal.set_len(values.len()) };
    (normal, inverses)
}

/// Replaces the gradient of the output of [`rms_rows`] by that of its input.
pub(in crate::ops) fn rms_rows_backward(
    values: &[f32],
    gamma: &[f32],
    inverses: &[f32],
    grads: &mut [f32],
) {
    let width = gamma.len();
    let at_once = rows_at_once(width);
    let pieces = grads.par_chunks_mut(at_once * width);
    let pieces = pieces.zip(values.par_chunks(at_once * width));
    let pieces = pieces.zip(inverses.par_chunks(at_once));
    pieces.for_each(|((grads, values), inverses)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let rows = grads
                    .chunks_exact_mut(width)
                    .zip(values.chunks_exact(width));
                for ((grads, row), &inverse) in rows.zip(inverses) {
                    for (grad, gamma) in grads.iter_mut().zip(gamma) {
                        *grad *= gamma;
                    }
                    let along = dot(grads, row) * inverse * inverse / width as f32;
                    for (grad, x) in grads.iter_mut().zip(row) {
                        *grad = inverse * (*grad - x * along);
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows were counted as written as far as the shorter of scale and shift reaches.
    #[test]
    fn rows_that_would_stay_unwritten_are_refused() {
        let norm = |values: usize, gamma: usize, beta: usize| {
            let [values, gamma, beta] = [values, gamma, beta].map(|count| vec![0.5; count]);
            std::panic::catch_unwind(|| norm_rows(&values, [&gamma, &beta], 1e-5)).is_err()
        };
        for [values, gamma, beta] in [[12, 4, 3], [12, 4, 5], [12, 4, 0], [11, 4, 4], [12, 0, 0]] {
            assert!(norm(values, gamma, beta), "{values} {gamma} {beta}");
        }
        assert!(!norm(12, 4, 4) && !norm(0, 4, 4));
    }
}
