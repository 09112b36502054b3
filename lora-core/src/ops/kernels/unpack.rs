//! Codes of a few bits back to numbers.

use super::{CHUNK, written};
use crate::ops::packed::{BLOCK, INT8_OFFSET, NF4, WORD};

/// The values of NF4 codes, eight to a word, a scale to each block.
pub(crate) fn unpack_nf4(codes: &[i32], scales: &[f32], count: usize) -> Vec<f32> {
    unpack::<4>(
        codes,
        scales,
        count,
        #[inline(always)]
        |code| NF4[code as usize & 15],
    )
}

/// The values of whole numbers of 8 bits, four to a word, a scale to each block.
pub(crate) fn unpack_int8(codes: &[i32], scales: &[f32], count: usize) -> Vec<f32> {
    unpack::<8>(
        codes,
        scales,
        count,
        #[inline(always)]
        |code| ((code & 255) as i32 - INT8_OFFSET) as f32,
    )
}

/// The first `count` values of codes of so many bits. Of what `value` is given, only the lowest bits count.
fn unpack<const BITS: usize>(
    codes: &[i32],
    scales: &[f32],
    count: usize,
    value: impl Fn(u32) -> f32 + Sync,
) -> Vec<f32> {
    const { assert!(CHUNK.is_multiple_of(BLOCK)) };
    let words = BLOCK * BITS / WORD;
    written(
        count,
        #[inline(always)]
        |start, piece| {
            let first = start / BLOCK;
            for (index, values) in piece.chunks_mut(BLOCK).enumerate() {
                let block = first + index;
                let scale = scales[block];
                let codes = &codes[block * words..(block + 1) * words];
                for (values, &word) in values.chunks_mut(WORD / BITS).zip(codes) {
                    for (index, found) in values.iter_mut().enumerate() {
                        found.write(value(word as u32 >> (index * BITS)) * scale);
                    }
                }
            }
        },
    )
}
