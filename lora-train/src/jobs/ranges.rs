//! Numbers that must lie in a range.

use crate::TrainError;

/// The value, or an error that names the option and what was expected.
pub(crate) fn within(name: &str, value: f64, ok: bool, expected: &str) -> Result<f64, TrainError> {
    match ok {
        true => Ok(value),
        false => Err(TrainError::config(
            name,
            format!("is {value}, expected {expected}"),
        )),
    }
}

/// A count.
pub(crate) fn at_least_one(name: &str, value: usize) -> Result<usize, TrainError> {
    match value {
        0 => Err(TrainError::config(name, "is 0, expected at least 1")),
        value => Ok(value),
    }
}
