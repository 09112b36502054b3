//! The best approximation of a mixed update by two factors.

use super::{Mix, concatenated, result};
use crate::attach::svd::{Svd, svd};
use crate::error::LoraError;
use crate::file::{StoredFactors, StoredTensor};
use faer::Mat;

/// Factors of this rank for the mix of the updates `w_i s_i B_i A_i`, and the share of it that is lost.
pub(super) fn of_update(
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
        Mix::Linear => of_product(&concatenated(parts)),
        _ => {
            let updates: Vec<Vec<f32>> = parts.iter().map(|(factors, _)| update(factors)).collect();
            let updates: Vec<&[f32]> = updates.iter().map(Vec::as_slice).collect();
            let weights: Vec<f64> = parts.iter().map(|(_, weight)| *weight).collect();
            let mixed = mix.apply(&updates, &weights, seed);
            svd(Mat::from_fn(d_out, d_in, |i, j| f64::from(mixed[i * d_in + j])).as_ref())
        }
    };
    let Some((u, s, v)) = decomposed else {
        return Err(LoraError::UnsupportedTarget {
            module: module.into(),
            message: "its combined update has no singular values: is it finite?".into(),
        });
    };
    let all = s.iter().map(|s| s * s).sum::<f64>();
    let kept = s.iter().take(rank).map(|s| s * s).sum::<f64>();
    let lost = match all > 0.0 {
        true => ((all - kept).max(0.0) / all).sqrt(),
        false => 0.0,
    };
    // An update of a lower rank than asked for has zeros in the rest.
    let value = |m: &Mat<f64>, row: usize, i: usize| match i < s.len() {
        true => m[(row, i)],
        false => 0.0,
    };
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
    Ok((result(first, a, b), lost))
}

/// `s B A`, row-major.
fn update(factors: &StoredFactors) -> Vec<f32> {
    let product = factors.b.matrix() * factors.a.matrix();
    let [d_out, d_in] = factors.shape();
    let indices = (0..d_out).flat_map(|i| (0..d_in).map(move |j| (i, j)));
    indices
        .map(|at| (product[at] * factors.scale) as f32)
        .collect()
}

/// The decomposition of `B A` by that of a matrix of its rank: `B = Q_b R_b`, `Aᵀ = Q_a R_a`, and
/// `R_b R_aᵀ = U S Vᵀ`.
fn of_product(factors: &StoredFactors) -> Option<Svd> {
    let (b, a) = (factors.b.matrix(), factors.a.matrix());
    let (qr_b, qr_a) = (b.as_ref().qr(), a.transpose().qr());
    let core = qr_b.thin_R() * qr_a.thin_R().transpose();
    let (u, s, v) = svd(core.as_ref())?;
    Some((qr_b.compute_thin_Q() * u, s, qr_a.compute_thin_Q() * v))
}
