//! Gated activations and rotary embeddings.

use super::functions::sigmoid;
use super::{CHUNK, parallel_fill};
use pulp::Arch;
use rayon::prelude::*;

/// Computes `x sigmoid(x)`.
#[inline(always)]
pub(in crate::ops) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// Computes the derivative of [`silu`].
#[inline(always)]
pub(in crate::ops) fn silu_slope(x: f32) -> f32 {
    let share = sigmoid(x);
    share * (1.0 + x * (1.0 - share))
}

/// Computes `act(gate) ∘ up` in parallel.
///
/// # Panics
/// Panics if both differ in length.
pub(in crate::ops) fn gated(
    [gate, up]: [&[f32]; 2],
    activation: impl Fn(f32) -> f32 + Sync,
) -> Vec<f32> {
    assert_eq!(gate.len(), up.len());
    parallel_fill(
        gate.len(),
        #[inline(always)]
        |start, piece| {
            let inputs = gate[start..].iter().zip(&up[start..]);
            for (y, (&gate, &up)) in piece.iter_mut().zip(inputs) {
                y.write(activation(gate) * up);
            }
        },
    )
}

/// Returns the gradient of `gate`, and replaces that of the product by that of `up`, in parallel.
///
/// # Panics
/// Panics if the inputs differ in length.
pub(in crate::ops) fn gated_backward(
    [gate, up]: [&[f32]; 2],
    grads: &mut [f32],
    activation: impl Fn(f32) -> f32 + Sync,
    slope: impl Fn(f32) -> f32 + Sync,
) -> Vec<f32> {
    assert!(gate.len() == up.len() && grads.len() == up.len());
    let mut of_gate = vec![0.0; gate.len()];
    let chunks = grads.par_chunks_mut(CHUNK).zip(gate.par_chunks(CHUNK));
    let chunks = chunks.zip(up.par_chunks(CHUNK));
    let chunks = chunks.zip(of_gate.par_chunks_mut(CHUNK));
    chunks.for_each(|(((grads, gate), up), of_gate)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let inputs = gate.iter().zip(up);
                let outputs = grads.iter_mut().zip(of_gate);
                for ((grad, of_gate), (&gate, &up)) in outputs.zip(inputs) {
                    *of_gate = *grad * up * slope(gate);
                    *grad *= activation(gate);
                }
            },
        );
    });
    of_gate
}

/// Turns the first `2 · half` features of each head, in rows of `heads` heads of `d` features. Angles repeat if there are fewer
/// rows of them.
///
/// # Panics
/// Panics if the sizes do not fit.
pub(in crate::ops) fn rotate(
    values: &mut [f32],
    [cos, sin]: [&[f32]; 2],
    [heads, d, half]: [usize; 3],
    back: bool,
) {
    let (width, rows) = (heads * d, cos.len() / half);
    assert!(
        2 * half <= d
            && cos.len() == sin.len()
            && rows > 0
            && values.len().is_multiple_of(width * rows),
        "{} values in rows of {width} for {rows} angles",
        values.len()
    );
    let sign = if back { -1.0 } else { 1.0 };
    let at_once = CHUNK.div_ceil(width);
    let pieces = values.par_chunks_mut(at_once * width).enumerate();
    pieces.for_each(|(index, piece)| {
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for (offset, row) in piece.chunks_exact_mut(width).enumerate() {
                    let angle = (index * at_once + offset) % rows * half;
                    let (cos, sin) = (&cos[angle..angle + half], &sin[angle..angle + half]);
                    for head in row.chunks_exact_mut(d) {
                        let (first, rest) = head.split_at_mut(half);
                        let angles = cos.iter().zip(sin);
                        for ((a, b), (cos, sin)) in first.iter_mut().zip(rest).zip(angles) {
                            let (x, y, sin) = (*a, *b, sign * sin);
                            *a = x * cos - y * sin;
                            *b = y * cos + x * sin;
                        }
                    }
                }
            },
        );
    });
}
