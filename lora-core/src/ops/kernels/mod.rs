//! Vectorized, parallel loops over values in host memory.
//!
//! | file | contents |
//! | --- | --- |
//! | `dropout` | dropout masks by a seed |
//! | `gelu`, `norm`, `rows` | GELU, normalization, row operations such as softmax |
//! | `gated` | gated activations, rotary embeddings |
//! | `unpack` | dequantization of packed values |
//! | `functions` | scalar functions that the compiler vectorizes |

mod dropout;
#[cfg(feature = "flex")]
mod functions;
#[cfg(feature = "flex")]
mod gated;
#[cfg(feature = "flex")]
mod gelu;
#[cfg(feature = "flex")]
mod norm;
#[cfg(feature = "flex")]
mod rows;
#[cfg(feature = "flex")]
mod unpack;

pub(super) use dropout::dropout_mask;
#[cfg(feature = "flex")]
pub(super) use dropout::{dropout_copy, dropout_in_place};
#[cfg(feature = "flex")]
pub(super) use functions::{exp_nonpositive, tanh};
#[cfg(feature = "flex")]
pub(super) use gated::{gated, gated_backward, rotate, silu, silu_slope};
#[cfg(feature = "flex")]
pub(super) use gelu::{gelu, gelu_slope, gelu_tanh, gelu_tanh_slope};
#[cfg(feature = "flex")]
pub(super) use norm::{norm_rows, norm_rows_backward, rms_rows, rms_rows_backward};
#[cfg(feature = "flex")]
pub(super) use rows::{dot, exp_in_place, largest, repeat_row, softmax_backward, sum_map};
#[cfg(feature = "flex")]
pub(super) use unpack::{unpack, unpack_into};

use pulp::Arch;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Number of values in one unit of work: some tens of microseconds.
const CHUNK: usize = 16 << 10;

/// Creates `count` values chunk by chunk in parallel. `write` receives the start of its chunk and must write all of it.
///
/// The memory is not cleared first: for masks and activations of some megabytes that would double the work.
fn parallel_fill(count: usize, write: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    let mut values = Vec::new();
    parallel_fill_into(&mut values, count, write);
    values
}

/// Replaces the content of `values` by what [`parallel_fill`] creates, in the same memory if it is large enough.
#[expect(
    unsafe_code,
    reason = "memory that is written in parallel and has no values before"
)]
fn parallel_fill_into(
    values: &mut Vec<f32>,
    count: usize,
    write: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync,
) {
    values.clear();
    values.reserve_exact(count);
    let chunks = values.spare_capacity_mut()[..count].par_chunks_mut(CHUNK);
    chunks.enumerate().for_each(|(index, chunk)| {
        Arch::new().dispatch(
            #[inline(always)]
            || write(index * CHUNK, chunk),
        );
    });
    // SAFETY: the chunks cover the first `count` values, and `write` writes all of a chunk.
    unsafe { values.set_len(count) };
}

/// Computes a function of each value in parallel.
#[cfg(feature = "flex")]
pub(super) fn map(values: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    parallel_fill(
        values.len(),
        #[inline(always)]
        |start, piece| {
            for (y, &x) in piece.iter_mut().zip(&values[start..]) {
                y.write(f(x));
            }
        },
    )
}

/// Multiplies `grads` by a function of `values` in parallel.
#[cfg(feature = "flex")]
pub(super) fn scale(grads: &mut [f32], values: &[f32], f: impl Fn(f32) -> f32 + Sync) {
    let chunks = grads.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    chunks.for_each(|(grads, values)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (grad, &x) in grads.iter_mut().zip(values) {
                    *grad *= f(x);
                }
            },
        );
    });
}
