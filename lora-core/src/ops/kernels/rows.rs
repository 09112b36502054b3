//! Row operations: sums, exponentials, softmax.

#![expect(
    unsafe_code,
    reason = "memory that is written in parallel and has no values before"
)]

use super::CHUNK;
use super::functions::exp_nonpositive;
use pulp::Arch;
use rayon::prelude::*;

/// Number of values in a wide register.
pub(super) const LANES: usize = 16;

/// Returns the number of rows in one unit of work.
pub(super) fn rows_at_once(width: usize) -> usize {
    CHUNK.div_ceil(width)
}

/// Repeats a row.
pub(in crate::ops) fn repeat_row(row: &[f32], times: usize) -> Vec<f32> {
    let at_once = rows_at_once(row.len()) * row.len();
    let mut values = Vec::with_capacity(row.len() * times);
    let pieces = values.spare_capacity_mut()[..row.len() * times].par_chunks_mut(at_once);
    pieces.for_each(|piece| {
        for room in piece.chunks_exact_mut(row.len()) {
            room.write_copy_of_slice(row);
        }
    });
    // SAFETY: the pieces cover all values, and each row is written.
    unsafe { values.set_len(row.len() * times) };
    values
}

/// Replaces `g` by `y (g - Σ g y)` over rows of `width` values.
pub(in crate::ops) fn softmax_backward(y: &[f32], grads: &mut [f32], width: usize) {
    let rows = CHUNK.div_ceil(width) * width;
    let pieces = grads.par_chunks_mut(rows).zip(y.par_chunks(rows));
    pieces.for_each(|(grads, y)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let rows = grads.chunks_exact_mut(width).zip(y.chunks_exact(width));
                for (grads, y) in rows {
                    let sum = dot(grads, y);
                    for (grad, &y) in grads.iter_mut().zip(y) {
                        *grad = y * (*grad - sum);
                    }
                }
            },
        );
    });
}

/// Sums a function of each value.
#[inline(always)]
pub(in crate::ops) fn sum_map(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (wide, rest) = row.as_chunks::<LANES>();
    for values in wide {
        for lane in 0..LANES {
            sums[lane] += f(values[lane]);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&x| f(x)).sum::<f32>()
}

/// Returns the maximum of a row, ignoring NaN; `-∞` for an empty row.
#[inline(always)]
pub(in crate::ops) fn largest(row: &[f32]) -> f32 {
    let mut most = [f32::NEG_INFINITY; LANES];
    let (wide, rest) = row.as_chunks::<LANES>();
    for values in wide {
        for lane in 0..LANES {
            most[lane] = if values[lane] > most[lane] {
                values[lane]
            } else {
                most[lane]
            };
        }
    }
    let all = most.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// Replaces each `x` of a row by `exp(x - max)` and returns the sum; no `x` may exceed `max`.
///
/// NaN stays NaN, so that a row with NaN has no valid-looking loss.
#[inline(always)]
pub(in crate::ops) fn exp_in_place(row: &mut [f32], max: f32) -> f64 {
    let mut sum = 0.0;
    // Sums of some hundred values per lane in f32, their total in f64.
    for piece in row.chunks_mut(256 * LANES) {
        let mut sums = [0.0f32; LANES];
        let (wide, rest) = piece.as_chunks_mut::<LANES>();
        for values in wide {
            for lane in 0..LANES {
                values[lane] = exp_nonpositive(values[lane] - max);
                sums[lane] += values[lane];
            }
        }
        for value in rest {
            *value = exp_nonpositive(*value - max);
            sums[0] += *value;
        }
        sum += sums.iter().map(|&part| f64::from(part)).sum::<f64>();
    }
    sum
}

/// Computes a dot product in 16 partial sums, which a wide register holds.
#[inline(always)]
pub(in crate::ops) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_wide, a_rest) = a.as_chunks::<LANES>();
    let (b_wide, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_wide.iter().zip(b_wide) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
