//! Distance between two lists of values, and difference of two lists of names.

use lora_core::file::StoredTensor;
use std::collections::BTreeSet;

/// Distance between two tensors of one shape.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Distance {
    /// Largest absolute difference; NaN if one of two values is NaN and the other is not.
    pub largest: f64,
    /// Norm of the difference over that of the first.
    pub relative: f64,
    /// True if all values are the same; NaN equals NaN.
    pub equal: bool,
}

impl Distance {
    /// Returns the distance of two tensors; `None` if their shapes differ.
    pub fn between(first: &StoredTensor, second: &StoredTensor) -> Option<Self> {
        let same_shape = first.shape == second.shape;
        same_shape.then(|| Self::new(&first.values, &second.values))
    }

    pub fn new(first: &[f32], second: &[f32]) -> Self {
        let (mut largest, mut squares, mut norm) = (0.0f64, 0.0f64, 0.0f64);
        let mut equal = true;
        for (&x, &y) in first.iter().zip(second) {
            if x.to_bits() == y.to_bits() || x == y {
                norm += f64::from(x).powi(2);
                continue;
            }
            equal = false;
            let difference = (f64::from(x) - f64::from(y)).abs();
            // `max` would drop what is not a number.
            largest = if difference.is_nan() || largest.is_nan() {
                f64::NAN
            } else {
                largest.max(difference)
            };
            squares += difference.powi(2);
            norm += f64::from(x).powi(2);
        }
        Self {
            largest,
            relative: if squares == 0.0 {
                0.0
            } else {
                (squares / norm).sqrt()
            },
            equal,
        }
    }

    /// Returns true if the relative difference is within a tolerance.
    pub fn within(&self, tolerance: f64) -> bool {
        self.equal || self.relative <= tolerance
    }
}

/// Returns the names in one of two lists only.
pub(super) fn only_in<'a>(
    first: impl Iterator<Item = &'a str>,
    second: impl Iterator<Item = &'a str>,
) -> [Vec<String>; 2] {
    let (first, second): (BTreeSet<_>, BTreeSet<_>) = (first.collect(), second.collect());
    let names = [&first - &second, &second - &first];
    names.map(|names| names.into_iter().map(String::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_differs_from_numbers_alone() {
        let nan = f32::NAN;
        assert!(Distance::new(&[1.0, nan], &[1.0, nan]).equal);
        let distance = Distance::new(&[1.0, nan], &[1.0, 2.0]);
        assert!(!distance.equal && distance.largest.is_nan() && !distance.within(1e9));
        let distance = Distance::new(&[3.0, 4.0], &[3.0, 4.5]);
        assert_eq!((distance.largest, distance.relative), (0.5, 0.1));
        assert!(distance.within(0.1) && !distance.within(0.09));
    }
}
