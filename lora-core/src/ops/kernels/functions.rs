//! Scalar functions that the compiler vectorizes.

use std::f32::consts::{LN_2, LOG2_E};

/// Computes the error function within 2 units in the last place of 1, by an odd rational function as in Eigen
/// and XLA. Beyond ±4 it is ±1, so that GELU is exactly zero far below zero.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let end = x.abs() >= 4.0;
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
    if end { x / 4.0 } else { x * p / q }
}

/// Computes `exp(x)` for `x <= 0` within 2 units in the last place; NaN stays NaN.
///
/// `x = n ln 2 + r` with `|r| ≤ ½ ln 2`, and `exp(r)` by its Taylor polynomial.
#[inline(always)]
pub(in crate::ops) fn exp_nonpositive(x: f32) -> f32 {
    /// Adding and subtracting it rounds a value below 2^22 to an integer.
    const ROUND: f32 = 12_582_912.0;
    // Below -87 the result would be subnormal, and is negligible.
    let x = if x < -87.0 { -87.0 } else { x };
    let n = (x * LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts: the product of n with the first is exact.
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

/// Computes `1 / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    // The exponential of a non-positive value does not overflow.
    let power = exp_nonpositive(-x.abs());
    let smaller = power / (1.0 + power);
    if x < 0.0 { smaller } else { 1.0 - smaller }
}

/// Computes `tanh(x)`, within a few units in the last place of 1.
#[inline(always)]
pub(in crate::ops) fn tanh(x: f32) -> f32 {
    let power = exp_nonpositive(-2.0 * x.abs());
    let size = (1.0 - power) / (1.0 + power);
    if x < 0.0 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.erf` and `torch.exp` of PyTorch 2.15 in float64, at the f32 nearest to each value.
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
            let found = f64::from(exp_nonpositive(x));
            assert!((found / expected - 1.0).abs() < 3e-7, "{x}: {found}");
        }
        assert!(exp_nonpositive(-1e6) < 1e-37);
    }
}
