//! Search for values that are not finite: a file that holds one was saved from a run that diverged.
//!
//! A value is infinite or NaN if all bits of its exponent are set, so the search compares bits and never converts.

use crate::ops::HalfFloat;
use rayon::prelude::*;

/// Number of values that a thread searches at a time: a quarter of a second-level cache.
const BLOCK: usize = 1 << 16;

/// Returns the first value that is infinite or NaN.
///
/// ```
/// assert_eq!(lora_core::first_not_finite(&[1.0, -2.5]), None);
/// assert_eq!(lora_core::first_not_finite(&[1.0, f32::INFINITY]), Some(f32::INFINITY));
/// ```
pub fn first_not_finite(values: &[f32]) -> Option<f32> {
    let is_bad = |value: f32| value.to_bits() & 0x7f80_0000 == 0x7f80_0000;
    first(values, is_bad)
}

/// Returns the first infinite or NaN value of 16-bit floats, given by their bits.
pub fn first_half_not_finite(bits: &[u16], half: HalfFloat) -> Option<f32> {
    let exponent = match half {
        HalfFloat::F16 => 0x7c00,
        HalfFloat::Bf16 => 0x7f80,
    };
    let bad = first(bits, |value| value & exponent == exponent)?;
    let fraction = bad & !(exponent | 0x8000);
    Some(match (fraction, bad & 0x8000) {
        (0, 0) => f32::INFINITY,
        (0, _) => f32::NEG_INFINITY,
        _ => f32::NAN,
    })
}

fn first<T: Copy + Send + Sync>(values: &[T], is_bad: impl Fn(T) -> bool + Sync) -> Option<T> {
    // Without a branch for each value the loop takes several values at a time.
    let has_bad = |block: &&[T]| {
        block
            .iter()
            .fold(false, |found, &value| found | is_bad(value))
    };
    let block = if values.len() <= BLOCK {
        Some(values).filter(has_bad)
    } else {
        values.par_chunks(BLOCK).find_first(has_bad)
    };
    block?.iter().copied().find(|&value| is_bad(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_not_finite_is_found_wherever_it_is() {
        let mut values = vec![f32::MAX; 3 * BLOCK + 5];
        values[7] = -f32::MAX;
        values[8] = f32::MIN_POSITIVE / 2.0;
        assert_eq!(first_not_finite(&values), None);
        for at in [0, BLOCK - 1, BLOCK, 3 * BLOCK + 4] {
            let mut values = values.clone();
            values[at] = f32::NEG_INFINITY;
            assert_eq!(first_not_finite(&values), Some(f32::NEG_INFINITY), "{at}");
            values[at] = f32::NAN;
            assert!(first_not_finite(&values).unwrap().is_nan(), "{at}");
        }
        assert_eq!(first_not_finite(&[]), None);
    }

    #[test]
    fn both_16_bit_types_are_searched_by_their_own_exponents() {
        use HalfFloat::{Bf16, F16};
        // The largest finite values, and those after them.
        assert_eq!(first_half_not_finite(&[0x7bff, 0xfbff], F16), None);
        assert_eq!(
            first_half_not_finite(&[1, 0x7c00], F16),
            Some(f32::INFINITY)
        );
        assert!(first_half_not_finite(&[0xfe00], F16).unwrap().is_nan());
        assert_eq!(first_half_not_finite(&[0x7f7f, 0x7c00], Bf16), None);
        assert_eq!(
            first_half_not_finite(&[0xff80], Bf16),
            Some(f32::NEG_INFINITY)
        );
    }
}
