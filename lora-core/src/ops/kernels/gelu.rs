//! GELU, exact and with the tanh approximation.

use super::functions::{erf, exp_nonpositive, sigmoid};
use super::{CHUNK, parallel_fill};
use pulp::Arch;
use rayon::prelude::*;
use std::f32::consts::FRAC_1_SQRT_2;

/// `1 / √(2π)`.
const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;

/// Computes GELU with the error function.
pub(in crate::ops) fn gelu(values: &[f32]) -> Vec<f32> {
    parallel_fill(
        values.len(),
        #[inline(always)]
        |start, piece| {
            for (y, &x) in piece.iter_mut().zip(&values[start..]) {
                y.write(0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)));
            }
        },
    )
}

/// Multiplies `grads` by the derivative of [`gelu`] at `values`.
pub(in crate::ops) fn gelu_backward(values: &[f32], grads: &mut [f32]) {
    let chunks = grads.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    chunks.for_each(|(grads, values)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (grad, &x) in grads.iter_mut().zip(values) {
                    let cdf = 0.5 * (1.0 + erf(x * FRAC_1_SQRT_2));
                    let pdf = FRAC_1_SQRT_TAU * exp_nonpositive(-0.5 * x * x);
                    *grad *= cdf + x * pdf;
                }
            },
        );
    });
}

/// `2 √(2/π)`, and the same times 0.044715: twice the argument of the tanh is `x (SLOPE + CUBIC x²)`.
const SLOPE: f32 = 1.595_769;
const CUBIC: f32 = 0.071_354_814;

/// Computes GELU with the tanh approximation.
pub(in crate::ops) fn gelu_tanh(values: &[f32]) -> Vec<f32> {
    parallel_fill(
        values.len(),
        #[inline(always)]
        |start, piece| {
            for (y, &x) in piece.iter_mut().zip(&values[start..]) {
                y.write(x * sigmoid(x * (SLOPE + CUBIC * x * x)));
            }
        },
    )
}

/// Multiplies `grads` by the derivative of [`gelu_tanh`] at `values`.
pub(in crate::ops) fn gelu_tanh_backward(values: &[f32], grads: &mut [f32]) {
    let chunks = grads.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    chunks.for_each(|(grads, values)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (grad, &x) in grads.iter_mut().zip(values) {
                    // Beyond ±20 the derivative is 0 or 1, and the square could overflow.
                    let x = x.clamp(-20.0, 20.0);
                    let share = sigmoid(x * (SLOPE + CUBIC * x * x));
                    let slope = x * (SLOPE + 3.0 * CUBIC * x * x);
                    *grad *= share + share * (1.0 - share) * slope;
                }
            },
        );
    });
}
