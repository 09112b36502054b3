//! Comparison of values within a tolerance.

/// Asserts that two slices have the same length, and that no two values differ by more than `allowed` returns for the
/// expected one.
#[track_caller]
pub fn assert_within<T: Copy + Into<f64>>(
    found: &[T],
    expected: &[T],
    allowed: impl Fn(f64) -> f64,
    what: &str,
) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let (found, expected) = (found.into(), expected.into());
        assert!(
            (found - expected).abs() <= allowed(expected),
            "{what}[{at}]: {found} is not {expected}"
        );
    }
}

/// Asserts that values are equal within a tolerance, which is absolute below 1 and relative above.
#[track_caller]
pub fn assert_near<T: Copy + Into<f64>>(
    found: &[T],
    expected: &[T],
    tolerance: impl Into<f64>,
    what: &str,
) {
    let tolerance = tolerance.into();
    let allowed = |expected: f64| tolerance * expected.abs().max(1.0);
    assert_within(found, expected, allowed, what);
}
