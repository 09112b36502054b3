//! Loops over numbers in host memory, on all threads and as wide as the processor's registers.

use super::packed::{BLOCK, INT8_OFFSET, NF4, WORD};
use pulp::Arch;
use rayon::prelude::*;
use std::f32::consts::{FRAC_1_SQRT_2, LN_2, LOG2_E};
use std::mem::MaybeUninit;

/// Numbers to a piece of work: some tens of microseconds.
const CHUNK: usize = 16 << 10;

/// `1 / √(2π)`.
const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;

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

/// The values of NF4 codes, eight to a word, a scale to each block.
pub(super) fn unpack_nf4(codes: &[i32], scales: &[f32], count: usize) -> Vec<f32> {
    unpack::<4>(
        codes,
        scales,
        count,
        #[inline(always)]
        |code| NF4[code as usize & 15],
    )
}

/// The values of whole numbers of 8 bits, four to a word, a scale to each block.
pub(super) fn unpack_int8(codes: &[i32], scales: &[f32], count: usize) -> Vec<f32> {
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

/// GELU by the error function.
pub(super) fn gelu(values: &[f32]) -> Vec<f32> {
    written(
        values.len(),
        #[inline(always)]
        |start, piece| {
            for (y, &x) in piece.iter_mut().zip(&values[start..]) {
                y.write(0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)));
            }
        },
    )
}

/// Multiplies `grads` with the derivative of [`gelu`] at `values`.
pub(super) fn gelu_backward(values: &[f32], grads: &mut [f32]) {
    let chunks = grads.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    chunks.for_each(|(grads, values)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (grad, &x) in grads.iter_mut().zip(values) {
                    let cdf = 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2));
                    let pdf = FRAC_1_SQRT_TAU * exp_of_negative(-0.5 * x * x);
                    *grad *= cdf + x * pdf;
                }
            },
        );
    });
}

/// `y (g - Σ g y)` over rows of `width` numbers, in the place of `g`.
pub(super) fn softmax_backward(y: &[f32], grads: &mut [f32], width: usize) {
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

/// The sum of products, in sixteen parts that a wide register can hold.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
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

/// A mask of dropout: 0 with this probability, else one over the probability to stay.
///
/// Each number is a hash of its index and the seed, so that the threads need not agree on an order.
pub(crate) fn dropout_mask(count: usize, probability: f64, seed: u64) -> Vec<f32> {
    let threshold = (probability * f64::from(u32::MAX)) as u32;
    let kept = (1.0 / (1.0 - probability)) as f32;
    let (low, high) = (seed as u32, (seed >> 32) as u32);
    written(
        count,
        #[inline(always)]
        |start, piece| {
            for (offset, value) in piece.iter_mut().enumerate() {
                let counter = (start as u32).wrapping_add(offset as u32);
                let hash = mix(mix(counter ^ low).wrapping_add(high));
                value.write(if hash >= threshold { kept } else { 0.0 });
            }
        },
    )
}

/// MurmurHash3's 32-bit finaliser.
#[inline(always)]
fn mix(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The error function, within 2 units in the last place of 1: an odd rational function, as in Eigen
/// and XLA. Beyond ±4 it is ±1 in f32.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut p = -2.726_142_3e-10_f32;
    for c in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        p = p * square + c;
    }
    let mut q = -1.456_607_2e-5_f32;
    for c in [
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329_2e-3,
        -1.426_473_9e-2,
    ] {
        q = q * square + c;
    }
    x * p / q
}

/// `exp(x)` of a number that is not positive, within 2 units in the last place.
///
/// `x = n ln 2 + r` with `|r| ≤ ½ ln 2`, and `exp(r)` by its Taylor polynomial.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    /// Adding it to a number below 2^22 rounds that to a whole one.
    const ROUND: f32 = 12_582_912.0;
    // Below it the result is no normal number any more; for a derivative it is zero.
    let x = x.max(-87.0);
    let n = (x * LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts, so that the product with n is exact in the first.
    let r = x - n * 0.693_359_4 - n * (LN_2 - 0.693_359_4);
    let mut power = 1.0 / 5040.0_f32;
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        power = power * r + c;
    }
    power * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.erf` and `torch.exp` of PyTorch 2.15 in float64, of the f32 next to each number.
    #[test]
    fn erf_and_exp_are_pytorchs() {
        for (x, expected) in [
            (0.0, 0.0),
            (1e-3, 0.0011283788445643173),
            (0.3, 0.32862677175271543),
            (-0.7, -0.6778011855967799),
            (1.1, 0.8802050775963802),
            (-1.9, -0.9927904285074909),
            (2.6, 0.9997639654587253),
            (3.9, 0.9999999652077781),
            (-50.0, -1.0),
        ] {
            let found = f64::from(erf(x));
            assert!((found - expected).abs() < 2.4e-7, "{x}: {found} {expected}");
        }
        for (x, expected) in [
            (0.0, 1.0),
            (-0.01, 0.9900498339704614),
            (-1.0, 0.36787944117144233),
            (-5.5, 0.004086771438464067),
            (-20.25, 1.6052280551856116e-09),
        ] {
            let found = f64::from(exp_of_negative(x));
            assert!((found / expected - 1.0).abs() < 3e-7, "{x}: {found}");
        }
        assert!(exp_of_negative(-1e6) < 1e-37);
    }

    #[test]
    fn a_mask_drops_its_share_whatever_the_seed_and_scales_the_rest() {
        let mask = dropout_mask(200_000, 0.3, 7);
        let dropped = mask.iter().filter(|&&value| value == 0.0).count() as f64 / 200_000.0;
        // Four standard deviations of the share.
        assert!((dropped - 0.3).abs() < 4.0 * (0.21f64 / 200_000.0).sqrt());
        assert!(
            mask.iter()
                .all(|&v| v == 0.0 || (v - 1.0 / 0.7).abs() < 1e-6)
        );
        assert_eq!(mask, dropout_mask(200_000, 0.3, 7));
        let other = dropout_mask(200_000, 0.3, 8);
        let both = mask
            .iter()
            .zip(&other)
            .filter(|(a, b)| **a == 0.0 && **b == 0.0);
        let both = both.count() as f64 / 200_000.0;
        assert!(
            (both - 0.09).abs() < 4.0 * (0.0819f64 / 200_000.0).sqrt(),
            "{both}"
        );
    }

    #[test]
    fn neighbours_in_a_mask_are_independent() {
        let mask = dropout_mask(400_000, 0.5, 123 << 32);
        for lag in [1, 2, 64, CHUNK] {
            let pairs = mask.iter().zip(&mask[lag..]);
            let both = pairs
                .clone()
                .filter(|(a, b)| **a == 0.0 && **b == 0.0)
                .count();
            let share = both as f64 / pairs.count() as f64;
            assert!(
                (share - 0.25).abs() < 4.0 * (0.1875f64 / 380_000.0).sqrt(),
                "{lag}: {share}"
            );
        }
    }
}
