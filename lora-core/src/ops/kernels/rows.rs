//! What is done to rows: sums, exponentials, softmax.

use super::CHUNK;
use super::functions::exp_of_negative;
use pulp::Arch;
use rayon::prelude::*;

/// Numbers that a wide register holds.
pub(super) const LANES: usize = 16;

/// Rows to a piece of work.
pub(super) fn rows_at_once(width: usize) -> usize {
    CHUNK.div_ceil(width)
}

/// A row, so many times.
pub(in crate::ops) fn repeated(row: &[f32], times: usize) -> Vec<f32> {
    let at_once = rows_at_once(row.len()) * row.len();
    let mut values = Vec::with_capacity(row.len() * times);
    let pieces = values.spare_capacity_mut()[..row.len() * times].par_chunks_mut(at_once);
    pieces.for_each(|piece| {
        for room in piece.chunks_exact_mut(row.len()) {
            room.write_copy_of_slice(row);
        }
    });
    // SAFETY: the pieces are all of them, and each row is written.
    unsafe { values.set_len(row.len() * times) };
    values
}

/// `y (g - Σ g y)` over rows of `width` numbers, in the place of `g`.
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

/// The sum of what a function makes of each number.
#[inline(always)]
pub(in crate::ops) fn sum_of(row: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (wide, rest) = row.as_chunks::<LANES>();
    for values in wide {
        for lane in 0..LANES {
            sums[lane] += of(values[lane]);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|&x| of(x)).sum::<f32>()
}

/// The largest of a row, but for what is not a number; `-∞` of none.
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

/// Replaces each `x` of a row, none of which is above `max`, by `exp(x - max)`, and returns their sum.
///
/// What is not a number stays none, so that a row with one has no loss that looks like one.
#[inline(always)]
pub(in crate::ops) fn exp_in_place(row: &mut [f32], max: f32) -> f64 {
    let mut sum = 0.0;
    // Sums in f32 of some hundred numbers a lane; of these in f64.
    for piece in row.chunks_mut(256 * LANES) {
        let mut sums = [0.0f32; LANES];
        let (wide, rest) = piece.as_chunks_mut::<LANES>();
        for values in wide {
            for lane in 0..LANES {
                values[lane] = exp_of_negative(values[lane] - max);
                sums[lane] += values[lane];
            }
        }
        for value in rest {
            *value = exp_of_negative(*value - max);
            sums[0] += *value;
        }
        sum += sums.iter().map(|&part| f64::from(part)).sum::<f64>();
    }
    sum
}

/// The sum of products, in sixteen parts that a wide register can hold.
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
