//! Packing of values, on the host.

use super::kind::Quantization;
use crate::ops::packed_format::{BLOCK, INT8_OFFSET, NF4, WORD};

/// Packed values of a block, and its scale.
type Block = ([i32; BLOCK], f32);

/// Upper bound of the numbers that are rounded to each value of NF4 except the last.
const BOUNDS: [f32; 15] = {
    let mut bounds = [0.0; 15];
    let mut index = 0;
    while index < 15 {
        bounds[index] = (NF4[index] + NF4[index + 1]) / 2.0;
        index += 1;
    }
    bounds
};

/// Packs values into words, and returns these with the scales; `None` if a value is not finite.
pub(super) fn pack(values: &[f32], quantization: Quantization) -> Option<(Vec<i32>, Vec<f32>)> {
    let bits = quantization.bits();
    let blocks = values.len().div_ceil(BLOCK);
    let mut words = Vec::with_capacity(blocks * BLOCK * bits / WORD);
    let mut scales = Vec::with_capacity(blocks);
    for block in values.chunks(BLOCK) {
        if !block.iter().all(|value| value.is_finite()) {
            return None;
        }
        let (codes, scale) = match quantization {
            Quantization::Nf4 => nf4(block),
            Quantization::Int8 => int8(block),
        };
        let word = |codes: &[i32]| {
            let codes = codes.iter().enumerate();
            codes.fold(0, |word, (index, code)| word | code << (index * bits))
        };
        words.extend(codes.chunks_exact(WORD / bits).map(word));
        scales.push(scale);
    }
    Some((words, scales))
}

fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |most, value| most.max(value.abs()))
}

/// Rounds as bitsandbytes does on a CPU: multiplies by one over the largest magnitude, and takes the nearest value.
fn nf4(block: &[f32]) -> Block {
    let scale = largest(block);
    // One over a smaller number would be infinite.
    let factor = 1.0 / scale.max(1e-38);
    let mut codes = [0; BLOCK];
    for (code, value) in codes.iter_mut().zip(block) {
        let value = value * factor;
        *code = BOUNDS.iter().map(|&bound| i32::from(value > bound)).sum();
    }
    (codes, scale)
}

fn int8(block: &[f32]) -> Block {
    let scale = largest(block) / 127.0;
    let mut codes = [INT8_OFFSET; BLOCK];
    if scale > 0.0 {
        for (code, value) in codes.iter_mut().zip(block) {
            // A scale that was rounded may take the largest a little beyond.
            let whole = (value / scale).round_ties_even().clamp(-127.0, 127.0);
            *code = whole as i32 + INT8_OFFSET;
        }
    }
    (codes, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_code_lies_in_the_lowest_bits_and_a_block_is_filled_up() {
        let (words, scales) = pack(&[-2.0, 0.0, 2.0], Quantization::Nf4).unwrap();
        assert_eq!((words.len(), scales), (8, vec![2.0]));
        assert_eq!(words[0] & 0xfff, 0xf70);
        let (words, scales) = pack(&[-2.54, 0.0, 0.02], Quantization::Int8).unwrap();
        assert_eq!((words.len(), scales), (16, vec![0.02]));
        assert_eq!(words[0] & 0x00ff_ffff, 0x81_80_01);
    }

    #[test]
    fn a_block_of_zeros_stays_zero_and_what_is_not_finite_is_refused() {
        for quantization in Quantization::ALL {
            assert_eq!(pack(&[0.0; 70], quantization).unwrap().1, [0.0, 0.0]);
            assert!(pack(&[1.0, f32::NAN], quantization).is_none());
            assert!(pack(&[f32::INFINITY], quantization).is_none());
            assert!(pack(&[1e-42, -1e-42], quantization).is_some());
        }
    }
}
