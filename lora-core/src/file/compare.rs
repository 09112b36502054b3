//! Norm of an update and the difference of two, without building either: an update has `d_out · d_in` values, its
//! factors `rank · (d_out + d_in)`.
//!
//! With `[B₁ B₂] = Q_b R_b` and `[A₁ᵀ A₂ᵀ] = Q_a R_a`, a combination of `B₁ A₁` and `B₂ A₂` is `Q_b C Q_aᵀ` with a small
//! `C` made of the `R`s, and has the Frobenius norm of `C`. Gram matrices would be cheaper still, but square what
//! cancels: the difference of two updates that agree in eight digits would be noise.

use super::adapter::{StoredFactors, StoredTensor};
use crate::spectrum::Directions;
use faer::Mat;

/// Difference of the updates of two adapters on one module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateDifference {
    /// Frobenius norms of the two updates, `‖s₁ B₁ A₁‖` and `‖s₂ B₂ A₂‖`.
    pub norms: [f64; 2],
    /// Norm of their difference, `‖s₁ B₁ A₁ − s₂ B₂ A₂‖`.
    pub difference: f64,
    /// Cosine, their inner product over the product of their norms; `None` if one of them is zero.
    pub cosine: Option<f64>,
    /// Subspace similarity of `A₁` and `A₂`, from 0 to 1: the share of the smaller of their row spaces that lies in the
    /// other, `‖U₁ᵀ U₂‖² / min(i, j)` on all right-singular vectors (Hu et al. 2021, section 7.2, equation 4). `None` if
    /// an `A` is zero.
    pub subspace: Option<f64>,
}

impl UpdateDifference {
    /// Returns the difference over the norm of the first update; infinite if only that is zero.
    pub fn relative(&self) -> f64 {
        if self.difference == 0.0 {
            0.0
        } else {
            self.difference / self.norms[0]
        }
    }
}

impl StoredFactors {
    /// Returns the Frobenius norm of the update `scale · B A`.
    ///
    /// ```
    /// use lora_core::LayerKind;
    /// use lora_core::file::{StoredFactors, StoredTensor};
    ///
    /// let factors = StoredFactors {
    ///     kind: LayerKind::Linear,
    ///     a: StoredTensor::new([1, 2], vec![3.0, 4.0]),
    ///     b: StoredTensor::new([2, 1], vec![0.0, 2.0]),
    ///     scale: 0.5,
    ///     magnitude: None,
    ///     bias: None,
    /// };
    /// assert!((factors.update_norm() - 5.0).abs() < 1e-12);
    /// ```
    pub fn update_norm(&self) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        let (b, a) = (self.b.matrix(), columns_of(&self.a));
        let (b, a) = (b.as_ref().qr(), a.as_ref().qr());
        self.scale.abs() * (b.thin_R() * a.thin_R().transpose()).norm_l2()
    }

    /// Compares the update with that of another adapter; `None` if they differ in shape or kind.
    ///
    /// Values that are not finite make numbers that are not.
    pub fn compare(&self, other: &Self) -> Option<UpdateDifference> {
        if (self.shape(), self.kind) != (other.shape(), other.kind) {
            return None;
        }
        if self.is_empty() || other.is_empty() {
            let norms = [self.update_norm(), other.update_norm()];
            return Some(UpdateDifference {
                norms,
                difference: norms[0].max(norms[1]),
                cosine: None,
                subspace: None,
            });
        }
        let b = beside(&self.b.matrix(), &other.b.matrix());
        let (a_1, a_2) = (columns_of(&self.a), columns_of(&other.a));
        let a = beside(&a_1, &a_2);
        let (b, a) = (b.as_ref().qr(), a.as_ref().qr());
        let (b, a) = (b.thin_R(), a.thin_R());
        let core = |first: usize, factors: &Self| {
            let rank = factors.rank();
            let product = b.subcols(first, rank) * a.subcols(first, rank).transpose();
            Mat::from_fn(product.nrows(), product.ncols(), |i, j| {
                factors.scale * product[(i, j)]
            })
        };
        let (first, second) = (core(0, self), core(self.rank(), other));
        let norms = [first.norm_l2(), second.norm_l2()];
        let same = (self.scale, &self.a, &self.b) == (other.scale, &other.a, &other.b);
        let difference = if same {
            0.0
        } else {
            (&first - &second).norm_l2()
        };
        let product = norms[0] * norms[1];
        Some(UpdateDifference {
            norms,
            difference,
            cosine: (product > 0.0).then(|| inner(&first, &second) / product),
            subspace: subspace(&a_1, &a_2),
        })
    }

    /// Returns true if there is no value: the other extent may be anything then.
    fn is_empty(&self) -> bool {
        self.a.values.is_empty() || self.b.values.is_empty()
    }
}

/// Returns the rows of a matrix as columns.
fn columns_of(tensor: &StoredTensor) -> Mat<f64> {
    tensor.matrix().transpose().to_owned()
}

fn beside(left: &Mat<f64>, right: &Mat<f64>) -> Mat<f64> {
    let columns = left.ncols();
    Mat::from_fn(left.nrows(), columns + right.ncols(), |i, j| {
        if j < columns {
            left[(i, j)]
        } else {
            right[(i, j - columns)]
        }
    })
}

fn inner(left: &Mat<f64>, right: &Mat<f64>) -> f64 {
    let columns = 0..left.ncols();
    let products = |j: usize| (0..left.nrows()).map(move |i| left[(i, j)] * right[(i, j)]);
    columns.flat_map(products).sum()
}

/// Returns the similarity of the column spaces of two matrices.
fn subspace(left: &Mat<f64>, right: &Mat<f64>) -> Option<f64> {
    let (left, right) = (
        Directions::spanning(left.as_ref())?,
        Directions::spanning(right.as_ref())?,
    );
    left.similarity(&right).last()?.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LayerKind;

    /// Values that look random: a few bits of a hash of their place.
    fn tensor(shape: [usize; 2], seed: usize) -> StoredTensor {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0;
        StoredTensor::new(shape, (0..shape[0] * shape[1]).map(value).collect())
    }

    fn factors(rank: usize, scale: f64, seed: usize) -> StoredFactors {
        StoredFactors {
            kind: LayerKind::Linear,
            a: tensor([rank, 7], seed),
            b: tensor([5, rank], seed + 50),
            scale,
            magnitude: None,
            bias: None,
        }
    }

    fn dense(factors: &StoredFactors) -> Vec<f64> {
        let [d_out, d_in] = factors.shape();
        let rank = factors.rank();
        let value = |i: usize, j: usize| -> f64 {
            let products = (0..rank).map(|k| {
                f64::from(factors.b.values[i * rank + k])
                    * f64::from(factors.a.values[k * d_in + j])
            });
            factors.scale * products.sum::<f64>()
        };
        (0..d_out)
            .flat_map(|i| (0..d_in).map(move |j| (i, j)))
            .map(|(i, j)| value(i, j))
            .collect()
    }

    fn length(values: &[f64]) -> f64 {
        values.iter().map(|v| v * v).sum::<f64>().sqrt()
    }

    #[test]
    fn norms_and_differences_are_those_of_the_dense_updates() {
        // Ranks that are unequal, and one above both sides of the weight.
        for (rank, other) in [(2, 3), (4, 1), (9, 2)] {
            let (first, second) = (factors(rank, 1.5, 1), factors(other, -0.25, 2));
            let (x, y) = (dense(&first), dense(&second));
            let found = first.compare(&second).unwrap();
            let difference: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
            let product: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            // f64 on values near 1: rounding errors of 1e-15 each.
            let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
            close(first.update_norm(), length(&x));
            close(found.norms[0], length(&x));
            close(found.norms[1], length(&y));
            close(found.difference, length(&difference));
            close(found.cosine.unwrap(), product / length(&x) / length(&y));
        }
    }

    #[test]
    fn a_difference_in_the_last_bits_is_not_lost_to_cancellation() {
        let first = factors(3, 2.0, 1);
        let mut second = first.clone();
        second.b.values[4] = f32::from_bits(second.b.values[4].to_bits() + 1);
        let (x, y) = (dense(&first), dense(&second));
        let difference: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
        let found = first.compare(&second).unwrap();
        let error = found.difference / length(&difference) - 1.0;
        // One bit of f32 is 1e-7 of the update; Gram matrices would leave nothing of it.
        assert!(error.abs() < 1e-6, "{error}");
        assert_eq!(first.compare(&first).unwrap().difference, 0.0);
    }

    #[test]
    fn subspaces_are_one_inside_each_other_and_zero_where_orthogonal() {
        let of = |a: &[f32], rank: usize| StoredFactors {
            kind: LayerKind::Linear,
            a: StoredTensor::new([rank, 4], a.to_vec()),
            b: tensor([3, rank], 9),
            scale: 1.0,
            magnitude: None,
            bias: None,
        };
        let plane = of(&[1.0, 1.0, 0.0, 0.0, 1.0, -2.0, 0.0, 0.0], 2);
        let line = of(&[0.0, 5.0, 0.0, 0.0], 1);
        let other = of(&[0.0, 0.0, 0.5, 1.0], 1);
        let tilted = of(&[0.0, 3.0, 4.0, 0.0], 1);
        let zero = of(&[0.0; 4], 1);
        let similarity = |x: &StoredFactors, y: &StoredFactors| x.compare(y).unwrap().subspace;
        assert!((similarity(&plane, &line).unwrap() - 1.0).abs() < 1e-12);
        assert!(similarity(&plane, &other).unwrap() < 1e-12);
        assert!((similarity(&plane, &tilted).unwrap() - 0.36).abs() < 1e-12);
        assert_eq!(similarity(&plane, &zero), None);
        assert_eq!(plane.compare(&zero).unwrap().cosine, None);
    }
}
