//! Ranges of numeric options.

use crate::TrainError;
use std::ops::RangeBounds;

/// Returns the value if it is in the range, else an error that names the option and the expected range.
pub(crate) fn within(
    name: &str,
    value: f64,
    range: impl RangeBounds<f64>,
    expected: &str,
) -> Result<f64, TrainError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let message = format!("is {value}, expected {expected}");
    Err(TrainError::config(name, message))
}

/// Returns a count, which must not be 0.
pub(crate) fn at_least_one(name: &str, value: usize) -> Result<usize, TrainError> {
    match value {
        0 => Err(TrainError::config(name, "is 0, expected at least 1")),
        value => Ok(value),
    }
}
