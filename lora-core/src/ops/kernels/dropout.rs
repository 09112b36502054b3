//! Dropout masks by a seed.

use super::parallel_fill;
use crate::ops::seeded_mask::SeededMask;
#[cfg(feature = "flex")]
use {super::CHUNK, pulp::Arch, rayon::prelude::*};

/// Generates the mask of `count` elements, of which the first has the index `first`.
pub(in crate::ops) fn dropout_mask(count: usize, mask: SeededMask, first: usize) -> Vec<f32> {
    parallel_fill(
        count,
        #[inline(always)]
        |start, piece| {
            for (offset, value) in piece.iter_mut().enumerate() {
                value.write(mask.factor(((first + start) as u32).wrapping_add(offset as u32)));
            }
        },
    )
}

/// Multiplies values by their mask.
#[cfg(feature = "flex")]
pub(in crate::ops) fn dropout_copy(values: &[f32], mask: SeededMask) -> Vec<f32> {
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
pub(in crate::ops) fn dropout_in_place(values: &mut [f32], mask: SeededMask) {
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

#[cfg(test)]
mod tests {
    use super::super::CHUNK;
    use super::*;

    fn whole_mask(count: usize, probability: f64, seed: u64) -> Vec<f32> {
        dropout_mask(count, SeededMask::new(probability, seed), 0)
    }

    #[test]
    #[cfg_attr(miri, ignore = "interprets hundreds of thousands of draws")]
    fn a_mask_drops_its_share_whatever_the_seed_and_scales_the_rest() {
        let mask = whole_mask(200_000, 0.3, 7);
        let dropped = mask.iter().filter(|&&value| value == 0.0).count() as f64 / 200_000.0;
        // Four standard deviations of the share.
        assert!((dropped - 0.3).abs() < 4.0 * (0.21f64 / 200_000.0).sqrt());
        assert!(
            mask.iter()
                .all(|&v| v == 0.0 || (v - 1.0 / 0.7).abs() < 1e-6)
        );
        assert_eq!(mask, whole_mask(200_000, 0.3, 7));
        let other = whole_mask(200_000, 0.3, 8);
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
    #[cfg_attr(miri, ignore = "interprets hundreds of thousands of draws")]
    fn neighbours_in_a_mask_are_independent() {
        let mask = whole_mask(400_000, 0.5, 123 << 32);
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
