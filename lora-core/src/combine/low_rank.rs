//! Best low-rank approximation of a mixed update.

use super::{Mix, combined, concatenated};
use crate::error::LoraError;
use crate::file::{StoredFactors, StoredTensor};
use crate::spectrum::{product_svd, svd};
use faer::Mat;

/// Returns factors of this rank for the mix of the updates `w_i s_i B_i A_i`, and its truncation error.
pub(super) fn approximate(
    module: &str,
    parts: &[(&StoredFactors, f64)],
    mix: &Mix,
    rank: usize,
    seed: u64,
) -> Result<(StoredFactors, f64), LoraError> {
    let first = parts[0].0;
    let [d_out, d_in] = first.shape();
    let rank = rank.min(d_out).min(d_in);
    let decomposed = match mix {
        Mix::Linear => {
            let sum = concatenated(parts);
            product_svd(sum.b.matrix().as_ref(), sum.a.matrix().as_ref())
        }
        _ => {
            let updates: Vec<Vec<f32>> = parts.iter().map(|(factors, _)| update(factors)).collect();
            let updates: Vec<&[f32]> = updates.iter().map(Vec::as_slice).collect();
            let weights: Vec<f64> = parts.iter().map(|(_, weight)| *weight).collect();
            let mixed = mix.apply(&updates, &weights, seed);
            svd(Mat::from_fn(d_out, d_in, |i, j| f64::from(mixed[i * d_in + j])).as_ref())
        }
    };
    let Some((u, s, v)) = decomposed else {
        let message = "its combined update has no singular values: is it finite?";
        return Err(LoraError::unsupported_target(module, message));
    };
    let all = s.iter().map(|s| s * s).sum::<f64>();
    let kept = s.iter().take(rank).map(|s| s * s).sum::<f64>();
    let lost = if all > 0.0 {
        ((all - kept).max(0.0) / all).sqrt()
    } else {
        0.0
    };
    // An update of a lower rank than asked for has zeros in the rest.
    let value = |m: &Mat<f64>, row: usize, i: usize| if i < s.len() { m[(row, i)] } else { 0.0 };
    let mut a = Vec::with_capacity(rank * d_in);
    for i in 0..rank {
        a.extend((0..d_in).map(|column| value(&v, column, i) as f32));
    }
    let mut b = Vec::with_capacity(d_out * rank);
    for row in 0..d_out {
        let scaled = |i: usize| value(&u, row, i) * s.get(i).copied().unwrap_or(0.0);
        b.extend((0..rank).map(|i| scaled(i) as f32));
    }
    let (a, b) = (
        StoredTensor::new([rank, d_in], a),
        StoredTensor::new([d_out, rank], b),
    );
    Ok((combined(first, a, b), lost))
}

/// Returns `s B A`, row-major.
fn update(factors: &StoredFactors) -> Vec<f32> {
    let product = factors.b.matrix() * factors.a.matrix();
    let [d_out, d_in] = factors.shape();
    let indices = (0..d_out).flat_map(|i| (0..d_in).map(move |j| (i, j)));
    indices
        .map(|at| (product[at] * factors.scale) as f32)
        .collect()
}
