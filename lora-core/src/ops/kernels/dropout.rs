//! Dropout masks by a seed.

use super::{CHUNK, parallel_fill};
use pulp::Arch;
use rayon::prelude::*;

/// Dropout mask defined by a hash of the element's index and a seed. Threads generate it in any order, and it can be
/// generated again.
#[derive(Clone, Copy)]
pub(crate) struct SeededMask {
    threshold: u32,
    kept: f32,
    seed: [u32; 2],
}

impl SeededMask {
    /// Creates a mask that zeroes elements with `probability`, in [0, 1).
    pub(crate) fn new(probability: f64, seed: u64) -> Self {
        Self {
            threshold: (probability * f64::from(u32::MAX)) as u32,
            kept: (1.0 / (1.0 - probability)) as f32,
            seed: [seed as u32, (seed >> 32) as u32],
        }
    }

    /// Returns the factor of an element: 0 if it is dropped, else `1 / (1 - probability)`.
    #[inline(always)]
    pub(in crate::ops) fn factor(self, index: u32) -> f32 {
        let [low, high] = self.seed;
        let hash = mix(mix(index ^ low).wrapping_add(high));
        if hash >= self.threshold {
            self.kept
        } else {
            0.0
        }
    }
}

/// Generates the mask of the first `count` elements.
pub(crate) fn dropout_mask(count: usize, probability: f64, seed: u64) -> Vec<f32> {
    let mask = SeededMask::new(probability, seed);
    parallel_fill(
        count,
        #[inline(always)]
        |start, piece| {
            for (offset, value) in piece.iter_mut().enumerate() {
                value.write(mask.factor((start as u32).wrapping_add(offset as u32)));
            }
        },
    )
}

/// Multiplies values by their mask.
#[cfg(feature = "flex")]
pub(in crate::ops) fn dropout_copy(values: &[f32], probability: f64, seed: u64) -> Vec<f32> {
    let mask = SeededMask::new(probability, seed);
    parallel_fill(
        values.len(),
        #[inline(always)]
        |start, piece| {
            for (offset, (y, x)) in piece.iter_mut().zip(&values[start..]).enumerate() {
                y.write(x * mask.factor((start as u32).wrapping_add(offset as u32)));
            }
        },
    )
}

/// Multiplies values by their mask in place.
#[cfg(feature = "flex")]
pub(in crate::ops) fn dropout_in_place(values: &mut [f32], probability: f64, seed: u64) {
    let mask = SeededMask::new(probability, seed);
    let pieces = values.par_chunks_mut(CHUNK).enumerate();
    pieces.for_each(|(index, piece)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let start = (index * CHUNK) as u32;
                for (offset, x) in piece.iter_mut().enumerate() {
                    *x *= mask.factor(start.wrapping_add(offset as u32));
                }
            },
        );
    });
}

/// Finalizer of the 32-bit `MurmurHash3`.
#[inline(always)]
fn mix(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

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
