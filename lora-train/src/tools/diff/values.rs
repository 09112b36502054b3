//! Two lists of values held against each other.

/// How far two tensors of one shape are apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Apart {
    /// The largest absolute difference; NaN where one of two values is no number and the other is.
    pub largest: f64,
    /// The norm of the difference over that of the first.
    pub relative: f64,
    /// Whether all values are the same, not a number among them.
    pub equal: bool,
}

impl Apart {
    pub fn of(first: &[f32], second: &[f32]) -> Self {
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
            largest = match difference.is_nan() || largest.is_nan() {
                true => f64::NAN,
                false => largest.max(difference),
            };
            squares += difference.powi(2);
            norm += f64::from(x).powi(2);
        }
        Self {
            largest,
            relative: match squares == 0.0 {
                true => 0.0,
                false => (squares / norm).sqrt(),
            },
            equal,
        }
    }

    /// Whether they are the same but for a relative difference.
    pub fn within(&self, tolerance: f64) -> bool {
        self.equal || self.relative <= tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_differs_from_numbers_alone() {
        let nan = f32::NAN;
        assert!(Apart::of(&[1.0, nan], &[1.0, nan]).equal);
        let apart = Apart::of(&[1.0, nan], &[1.0, 2.0]);
        assert!(!apart.equal && apart.largest.is_nan() && !apart.within(1e9));
        let apart = Apart::of(&[3.0, 4.0], &[3.0, 4.5]);
        assert_eq!((apart.largest, apart.relative), (0.5, 0.1));
        assert!(apart.within(0.1) && !apart.within(0.09));
    }
}
