//! Dequantization of packed values.

use super::{CHUNK, parallel_fill};
use crate::ops::packed_format::{BLOCK, INT8_OFFSET, NF4, WORD};

/// Dequantizes the first `count` values of 4 bits (NF4) or 8 bits (integers), with one scale per block.
pub(crate) fn unpack(packed: &[i32], scales: &[f32], bits: usize, count: usize) -> Vec<f32> {
    match bits {
        4 => unpack_by::<4>(
            packed,
            scales,
            count,
            #[inline(always)]
            |bits| NF4[bits as usize & 15],
        ),
        _ => unpack_by::<8>(
            packed,
            scales,
            count,
            #[inline(always)]
            |bits| ((bits & 255) as i32 - INT8_OFFSET) as f32,
        ),
    }
}

/// Dequantizes the first `count` values of `BITS` bits. `value` must use only the lowest `BITS` bits of its argument.
fn unpack_by<const BITS: usize>(
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
