//! Vectorized, parallel loops over values in host memory.
//!
//! | file | contents |
//! | --- | --- |
//! | `dropout` | dropout masks by a seed |
//! | `gelu`, `norm`, `rows` | GELU, layer normalization, row operations such as softmax |
//! | `unpack` | dequantization of packed values |
//! | `functions` | scalar functions that the compiler vectorizes |

mod dropout;
#[cfg(feature = "flex")]
mod functions;
#[cfg(feature = "flex")]
mod gelu;
#[cfg(feature = "flex")]
mod norm;
#[cfg(feature = "flex")]
mod rows;
#[cfg(feature = "flex")]
mod unpack;

pub(crate) use dropout::dropout_mask;
#[cfg(feature = "flex")]
pub(super) use dropout::{SeededMask, dropout_copy, dropout_in_place};
#[cfg(feature = "flex")]
pub(super) use functions::exp_nonpositive;
#[cfg(feature = "flex")]
pub(super) use gelu::{gelu, gelu_backward, gelu_tanh, gelu_tanh_backward};
#[cfg(feature = "flex")]
pub(super) use norm::{norm_rows, norm_rows_backward};
#[cfg(feature = "flex")]
pub(super) use rows::{dot, exp_in_place, largest, repeat_row, softmax_backward, sum_map};
#[cfg(feature = "flex")]
pub(super) use unpack::{unpack_int8, unpack_nf4};

use pulp::Arch;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Number of values in one unit of work: some tens of microseconds.
const CHUNK: usize = 16 << 10;

/// Creates `count` values chunk by chunk in parallel. `write` receives the start of its chunk and must write all of it.
///
/// The memory is not cleared first: for masks and activations of some megabytes that would double the work.
fn parallel_fill(count: usize, write: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    let mut values = Vec::with_capacity(count);
    let chunks = values.spare_capacity_mut()[..count].par_chunks_mut(CHUNK);
    chunks.enumerate().for_each(|(index, chunk)| {
        Arch::new().dispatch(
            #[inline(always)]
            || write(index * CHUNK, chunk),
        );
    });
    // SAFETY: the chunks cover the first `count` values, and `write` writes all of a chunk.
    unsafe { values.set_len(count) };
    values
}
