//! Loops over numbers in host memory, on all threads and as wide as the processor's registers.

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
pub(super) use dropout::{Drawn, drop_in_place, dropped};
#[cfg(feature = "flex")]
pub(super) use functions::exp_of_negative;
#[cfg(feature = "flex")]
pub(super) use gelu::{gelu, gelu_backward, gelu_tanh, gelu_tanh_backward};
#[cfg(feature = "flex")]
pub(super) use norm::{norm_rows, norm_rows_backward};
#[cfg(feature = "flex")]
pub(super) use rows::{dot, exp_in_place, largest, repeated, softmax_backward, sum_of};
#[cfg(feature = "flex")]
pub(super) use unpack::{unpack_int8, unpack_nf4};

use pulp::Arch;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Numbers to a piece of work: some tens of microseconds.
const CHUNK: usize = 16 << 10;

/// So many numbers, written piece by piece: `write` is told where its piece begins and writes all
/// of it.
///
/// Memory that is about to be written is not cleared first: for masks and activations of some megabytes
/// that is as much work again.
fn written(count: usize, write: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync) -> Vec<f32> {
    let mut values = Vec::with_capacity(count);
    let pieces = values.spare_capacity_mut()[..count].par_chunks_mut(CHUNK);
    pieces.enumerate().for_each(|(index, piece)| {
        Arch::new().dispatch(
            #[inline(always)]
            || write(index * CHUNK, piece),
        );
    });
    // SAFETY: the pieces are all of the first `count` numbers, and `write` writes each of a piece.
    unsafe { values.set_len(count) };
    values
}
