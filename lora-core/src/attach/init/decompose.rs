//! Start values from matrix decompositions, on the host and in f64.

use crate::config::{LoraConfig, LoraInit};
use crate::error::LoraError;
use crate::layout::AdaptedModule;
use crate::random::normal_values;
use crate::spectrum::{OVERSAMPLING, leading_svd, svd};
use faer::{Mat, MatRef};

/// `A` and `B`, row-major.
type Pair = (Vec<f32>, Vec<f32>);

/// Computes factors from the principal part of the weight: `s A B` is its best approximation
/// of this rank (PiSSA) or the first part of its QR decomposition (OLoRA), for each slice of a sliced adapter.
pub(super) fn leading_factors(
    module: &AdaptedModule,
    config: &LoraConfig,
    weight: &[f32],
) -> Result<Pair, LoraError> {
    let [d_in, d_out] = module.shape;
    if weight.len() != d_in * d_out || !weight.iter().all(|value| value.is_finite()) {
        return Err(unfit(module, "its weight has values that are not finite"));
    }
    let columns = columns(module);
    by_slice(module, |slice| {
        let w = Mat::from_fn(d_in, columns[slice].len(), |row, column| {
            f64::from(weight[row * d_out + columns[slice][column]])
        });
        match config.init {
            LoraInit::Olora => Ok(first_of_qr(w.as_ref(), module.rank)),
            init => {
                let (u, s, v) = match init {
                    LoraInit::FastPissa { iterations } => {
                        let random = (config.seed, format!("{}.{slice}", module.module));
                        let start = random_start(w.as_ref(), module.rank, random);
                        leading_svd(w.as_ref(), start, iterations, 0.0)
                    }
                    _ => svd(w.as_ref()),
                }
                .ok_or_else(|| unfit(module, "its singular values do not converge"))?;
                // The approximation is s A B, so s is divided out.
                let root = |i: usize| (s[i] / module.scale).sqrt();
                let a = Mat::from_fn(d_in, module.rank, |row, i| u[(row, i)] * root(i));
                let b = Mat::from_fn(module.rank, w.ncols(), |i, column| root(i) * v[(column, i)]);
                Ok((a, b))
            }
        }
    })
}

/// Draws random factors, `A` in one half of the rank's directions and `B` in the other, so that their product is
/// zero.
pub(super) fn orthogonal_factors(module: &AdaptedModule, seed: u64) -> Result<Pair, LoraError> {
    let (rank, half) = (module.rank, module.rank / 2);
    let path = &module.module;
    let random = |name: String, rows: usize, columns: usize| {
        let values = normal_values(seed, &name, rows * columns, 1.0);
        Mat::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j]))
    };
    let widths = module.block_widths();
    by_slice(module, |slice| {
        let width = widths[slice];
        let q = random(format!("{path}.{slice}.q"), rank, rank);
        let q = q.qr().compute_Q();
        let rows = |first: usize| Mat::from_fn(half, rank, |i, j| q[(2 * i + first, j)]);
        let a = random(format!("{path}.{slice}.a"), module.shape[0], half) * rows(0);
        let b = rows(1).transpose() * random(format!("{path}.{slice}.b"), half, width);
        Ok((a * faer::Scale(0.1), b * faer::Scale(0.1)))
    })
}

/// Returns the columns of the weight that belong to each slice of the adapter.
fn columns(module: &AdaptedModule) -> Vec<Vec<usize>> {
    let d_out = module.shape[1];
    match &module.slices {
        None => vec![(0..d_out).collect()],
        Some(slices) => {
            let columns = |&part: &usize| slices.columns(part, d_out);
            slices.adapted.iter().map(columns).collect()
        }
    }
}

/// Concatenates the factors of the slices: columns of `A`, rows of `B`.
fn by_slice(
    module: &AdaptedModule,
    factors: impl Fn(usize) -> Result<(Mat<f64>, Mat<f64>), LoraError>,
) -> Result<Pair, LoraError> {
    let [[d_in, total], [rows, columns]] = module.factor_shapes();
    let mut a = vec![0.0; d_in * total];
    let mut b = Vec::with_capacity(rows * columns);
    for (slice, width) in module.block_widths().into_iter().enumerate() {
        let (slice_a, slice_b) = factors(slice)?;
        for (row, column) in (0..d_in).flat_map(|row| (0..module.rank).map(move |c| (row, c))) {
            a[row * total + slice * module.rank + column] = slice_a[(row, column)] as f32;
        }
        let rows = (0..module.rank).flat_map(|row| (0..width).map(move |column| (row, column)));
        b.extend(rows.map(|index| slice_b[index] as f32));
    }
    Ok((a, b))
}

fn unfit(module: &AdaptedModule, message: &str) -> LoraError {
    let message = format!("{message}, so its adapter cannot be initialized from it");
    LoraError::unsupported_target(&module.module, message)
}

/// Returns `A` and `B` from the first columns of Q and rows of R, in `Wᵀ = Q R`.
fn first_of_qr(w: MatRef<'_, f64>, rank: usize) -> (Mat<f64>, Mat<f64>) {
    let qr = w.transpose().qr();
    let (q, r) = (qr.compute_thin_Q(), qr.thin_R());
    let a = Mat::from_fn(w.nrows(), rank, |row, i| r[(i, row)]);
    let b = Mat::from_fn(rank, w.ncols(), |i, column| q[(column, i)]);
    (a, b)
}

/// Draws the matrix that the fast decomposition starts from.
fn random_start(w: MatRef<'_, f64>, rank: usize, (seed, name): (u64, String)) -> Mat<f64> {
    let count = (rank + OVERSAMPLING).min(w.nrows()).min(w.ncols());
    let values = normal_values(seed, &name, w.ncols() * count, 1.0);
    Mat::from_fn(w.ncols(), count, |i, j| f64::from(values[i * count + j]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoraScaling;
    use crate::layout::{AdapterPath, FusedLayout, LayerKind, Slices};

    fn module(shape: [usize; 2], rank: usize, slices: Option<Slices>) -> AdaptedModule {
        AdaptedModule {
            module: "h.0.c_attn".into(),
            parameter: "h.0.c_attn.weight".into(),
            kind: LayerKind::Linear,
            shape,
            rank,
            alpha: 6.0,
            scale: LoraScaling::Standard.factor(6.0, rank),
            path: AdapterPath::Activation,
            slices,
            dora: false,
            bias: None,
            residual_init: true,
        }
    }

    /// Returns `s A B`, row-major, for the whole weight.
    fn product(module: &AdaptedModule, (a, b): &Pair) -> Vec<f64> {
        let [[d_in, rank], [_, width]] = module.factor_shapes();
        let at = |row: usize, column: usize| -> f64 {
            let terms =
                (0..rank).map(|i| f64::from(a[row * rank + i]) * f64::from(b[i * width + column]));
            terms.sum::<f64>() * module.scale
        };
        (0..d_in)
            .flat_map(|row| (0..width).map(move |c| (row, c)))
            .map(|(r, c)| at(r, c))
            .collect()
    }

    /// Returns a weight whose singular values fall quickly.
    fn weight([rows, columns]: [usize; 2]) -> Vec<f32> {
        let mut values = vec![0.0; rows * columns];
        for i in 0..rows.min(columns) {
            let u = normal_values(3, &format!("u{i}"), rows, 1.0);
            let v = normal_values(3, &format!("v{i}"), columns, 1.0);
            let size = 3.0 * 0.4f32.powi(i as i32);
            for row in 0..rows {
                for column in 0..columns {
                    values[row * columns + column] += size * u[row] * v[column];
                }
            }
        }
        values
    }

    fn distance(a: &[f64], b: &[f32]) -> f64 {
        let squares = a.iter().zip(b).map(|(a, b)| (a - f64::from(*b)).powi(2));
        squares.sum::<f64>().sqrt()
    }

    fn factors(init: LoraInit, module: &AdaptedModule, weight: &[f32]) -> Pair {
        let config = LoraConfig::new(module.rank).with_init(init);
        leading_factors(module, &config, weight).unwrap()
    }

    #[test]
    fn pissa_is_the_best_approximation_of_its_rank() {
        let module = module([9, 7], 3, None);
        let weight = weight([9, 7]);
        let w = Mat::from_fn(9, 7, |i, j| f64::from(weight[i * 7 + j]));
        let (_, s, _) = svd(w.as_ref()).unwrap();
        let smallest = s[3..].iter().map(|s| s * s).sum::<f64>().sqrt();
        let exact = distance(
            &product(&module, &factors(LoraInit::Pissa, &module, &weight)),
            &weight,
        );
        assert!((exact / smallest - 1.0).abs() < 1e-4, "{exact} {smallest}");
        let fast = LoraInit::FastPissa { iterations: 4 };
        let fast = distance(&product(&module, &factors(fast, &module, &weight)), &weight);
        assert!((fast / smallest - 1.0).abs() < 1e-3, "{fast} {smallest}");
    }

    #[test]
    fn olora_of_full_rank_is_the_weight() {
        let module = module([4, 9], 4, None);
        let weight = weight([4, 9]);
        let (a, b) = factors(LoraInit::Olora, &module, &weight);
        let unscaled: Vec<f64> = product(&module, &(a, b))
            .iter()
            .map(|v| v / module.scale)
            .collect();
        assert!(distance(&unscaled, &weight) < 1e-5);
    }

    #[test]
    fn slices_start_at_their_own_columns() {
        let slices = Slices {
            parts: 3,
            adapted: vec![0, 2],
            layout: FusedLayout::PartByPart,
        };
        let sliced = module([5, 12], 2, Some(slices));
        let weight = weight([5, 12]);
        let (a, b) = factors(LoraInit::Pissa, &sliced, &weight);
        let part = |first: usize| -> Vec<f32> {
            let rows = weight.chunks(12);
            rows.flat_map(|row| row[first..first + 4].to_vec())
                .collect()
        };
        let of_slice = module([5, 4], 2, None);
        for (slice, first) in [(0, 0), (1, 8)] {
            let (a_alone, b_alone) = factors(LoraInit::Pissa, &of_slice, &part(first));
            let a: Vec<f32> = a
                .chunks(4)
                .flat_map(|row| row[2 * slice..2 * slice + 2].to_vec())
                .collect();
            assert_eq!(
                (a, &b[8 * slice..8 * slice + 8]),
                (a_alone, b_alone.as_slice())
            );
        }
    }

    #[test]
    fn orthogonal_factors_cancel_and_are_not_zero() {
        let module = module([8, 6], 4, None);
        let (a, b) = orthogonal_factors(&module, 1).unwrap();
        assert!(a.iter().any(|v| v.abs() > 0.01) && b.iter().any(|v| v.abs() > 0.01));
        assert!(product(&module, &(a, b)).iter().all(|v| v.abs() < 1e-6));
    }

    #[test]
    fn a_weight_that_is_not_finite_is_refused() {
        let module = module([4, 4], 2, None);
        let config = LoraConfig::new(2).with_init(LoraInit::Pissa);
        let error = leading_factors(&module, &config, &[f32::NAN; 16]).unwrap_err();
        assert!(error.to_string().contains("h.0.c_attn"), "{error}");
    }
}
