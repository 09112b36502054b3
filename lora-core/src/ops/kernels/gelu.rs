//! GELU, exact and with the tanh approximation.

use super::functions::{erf, exp_nonpositive, sigmoid};
use std::f32::consts::FRAC_1_SQRT_2;

/// `1 / √(2π)`.
const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;

/// Computes GELU with the error function.
#[inline(always)]
pub(in crate::ops) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
}

/// Computes the derivative of [`gelu`].
#[inline(always)]
pub(in crate::ops) fn gelu_slope(x: f32) -> f32 {
    let cdf = 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2));
    let pdf = FRAC_1_SQRT_TAU * exp_nonpositive(-0.5 * x * x);
    cdf + x * pdf
}

/// `2 √(2/π)`, and the same times 0.044715: twice the argument of the tanh is `x (SLOPE + CUBIC x²)`.
const SLOPE: f32 = 1.595_769;
const CUBIC: f32 = 0.071_354_814;

/// Computes GELU with the tanh approximation.
#[inline(always)]
pub(in crate::ops) fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(x * (SLOPE + CUBIC * x * x))
}

/// Computes the derivative of [`gelu_tanh`].
#[inline(always)]
pub(in crate::ops) fn gelu_tanh_slope(x: f32) -> f32 {
    // Beyond ±20 the derivative is 0 or 1, and the square could overflow.
    let x = x.clamp(-20.0, 20.0);
    let share = sigmoid(x * (SLOPE + CUBIC * x * x));
    let slope = x * (SLOPE + 3.0 * CUBIC * x * x);
    share + share * (1.0 - share) * slope
}
