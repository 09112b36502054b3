//! Dequantization of packed values.

use super::{CHUNK, parallel_fill};
use crate::ops::packed_format::{BLOCK, INT8_OFFSET, NF4, WORD};

/// Dequantizes NF4 values, eight per integer, one scale per block.
pub(crate) fn unpack_nf4(packed: &[i32], scales: &[f32], count: usize) -> Vec<f32> {
    unpack::<4>(
        packed,
        scales,
        count,
        #[inline(always)]
        |bits| NF4[bits as usize & 15],
    )
}

/// Dequantizes 8-bit integers, four per integer, one scale per block.
pub(crate) fn unpack_int8(packed: &[i32], scales: &[f32], count: usize) -> Vec<f32> {
    unpack::<8>(
        packed,
        scales,
        count,
        #[inline(always)]
        |bits| ((bits & 255) as i32 - INT8_OFFSET) as f32,
    )
}

/// Dequantizes the first `count` values of `BITS` bits. `value` must use only the lowest `BITS` bits of its argument.
fn unpack<const BITS: usize>(
    packed: &[i32],
    scales: &[f32],
    count: usize,
    value: impl Fn(u32) -> f32 + Sync,
) -> Vec<f32> {
    const { assert!(CHUNK.is_multiple_of(BLOCK)) };
    let words = BLOCK * BITS / WORD;
    parallel_fill(
        count,
        #[inline(always)]
        |start, piece| {
            let first = start / BLOCK;
            for (index, values) in piece.chunks_mut(BLOCK).enumerate() {
                let block = first + index;
                let scale = scales[block];
                let packed = &packed[block * words..(block + 1) * words];
                for (values, &word) in values.chunks_mut(WORD / BITS).zip(packed) {
                    for (index, found) in values.iter_mut().enumerate() {
                        found.write(value(word as u32 >> (index * BITS)) * scale);
                    }
                }
            }
        },
    )
}
