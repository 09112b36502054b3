//! Dequantization of packed values.

use super::{CHUNK, parallel_fill, parallel_fill_into};
use crate::ops::packed_format::{BLOCK, INT8_OFFSET, NF4, PackedFormat, WORD};
/// Dequantizes the first `count` values. NF4 and integers have one scale per block, floats of 16 bits none.
pub(crate) fn unpack(
    packed: &[i32],
    scales: &[f32],
    format: PackedFormat,
    count: usize,
) -> Vec<f32> {
    let mut values = Vec::new();
    unpack_into(&mut values, packed, scales, format, count);
    values
}

/// Replaces the content of `values` by the first `count` dequantized values.
pub(crate) fn unpack_into(
    values: &mut Vec<f32>,
    packed: &[i32],
    scales: &[f32],
    format: PackedFormat,
    count: usize,
) {
    match format {
        PackedFormat::Nf4 => {
            *values = unpack_by::<4>(
                packed,
                scales,
                count,
                #[inline(always)]
                |bits| NF4[bits as usize & 15],
            );
        }
        PackedFormat::Int8 => {
            *values = unpack_by::<8>(
                packed,
                scales,
                count,
                #[inline(always)]
                |bits| ((bits & 255) as i32 - INT8_OFFSET) as f32,
            );
        }
        PackedFormat::F16 => widen(values, packed, count, f16_value),
        PackedFormat::Bf16 => widen(values, packed, count, bf16_value),
    }
}

/// Returns the value of a finite f16 in the low bits of an integer.
///
/// There is no branch, and no operand that is subnormal in f32, which some processors compute slowly.
#[inline(always)]
fn f16_value(bits: u32) -> f32 {
    // The exponent's bias is 127 in place of 15.
    let normal = f32::from_bits(((bits & 0x7fff) << 13) + (112 << 23));
    // 2⁻¹⁴ (1 + fraction) − 2⁻¹⁴ for an exponent of zero.
    let least = f32::from_bits(113 << 23);
    let subnormal = f32::from_bits(((bits & 0x3ff) << 13) + (113 << 23)) - least;
    let value = if bits & 0x7c00 == 0 {
        subnormal
    } else {
        normal
    };
    f32::from_bits(value.to_bits() | (bits & 0x8000) << 16)
}

/// Returns the value of a bf16 in the low bits of an integer.
#[inline(always)]
fn bf16_value(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}

/// Widens the first `count` floats of 16 bits.
fn widen(values: &mut Vec<f32>, packed: &[i32], count: usize, value: impl Fn(u32) -> f32 + Sync) {
    const { assert!(CHUNK.is_multiple_of(2)) };
    parallel_fill_into(
        values,
        count,
        #[inline(always)]
        |start, piece| {
            let words = &packed[start / 2..];
            let (pairs, last) = piece.as_chunks_mut::<2>();
            let whole = pairs.len();
            for ([low, high], &word) in pairs.iter_mut().zip(words) {
                let word = word as u32;
                low.write(value(word & 0xffff));
                high.write(value(word >> 16));
            }
            if let [last] = last {
                last.write(value(words[whole] as u32 & 0xffff));
            }
        },
    );
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
