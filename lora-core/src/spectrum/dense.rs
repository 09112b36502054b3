//! A weight of the base as a dense matrix: [`DenseWeight`].

use super::directions::{Directions, Singular};
use super::svd::{OVERSAMPLING, leading_svd, svd};
use crate::random::normal_values;
use faer::Mat;

/// Share of the shorter side up to which the leading directions are searched by themselves; beyond, the whole decomposition is
/// cheaper.
const FEW: usize = 8;
/// Shorter side up to which the whole decomposition takes a second or two.
const SMALL: usize = 768;
/// Largest number of rounds in the search of leading directions.
const ROUNDS: usize = 200;
/// Share of the squares that the last round may add.
const ENOUGH: f64 = 1e-10;

/// Weight `[d_out, d_in]`, in the orientation of an update `B A`.
#[derive(Clone, Debug)]
pub struct DenseWeight(Mat<f64>);

impl DenseWeight {
    /// Creates the weight `[rows, columns]` from its values.
    pub fn from_fn(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f64) -> Self {
        Self(Mat::from_fn(rows, columns, value))
    }

    /// Returns the shape, `[d_out, d_in]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.0.nrows(), self.0.ncols()]
    }

    /// Returns the Frobenius norm.
    pub fn norm(&self) -> f64 {
        self.0.norm_l2()
    }

    /// Returns the leading singular directions, at most `most`; `None` if the weight is zero or not finite.
    ///
    /// In a large weight, a few directions are found by subspace iteration: their values have relative errors below 1e-6, and those of
    /// a close pair of values may turn within their plane.
    pub fn singular(&self, most: usize) -> Option<Singular> {
        let side = self.0.nrows().min(self.0.ncols());
        if side <= SMALL || most.saturating_mul(FEW) > side {
            return Singular::leading(svd(self.0.as_ref())?, most);
        }
        let count = most + OVERSAMPLING;
        let columns = self.0.ncols();
        let values = normal_values(0, "leading directions", columns * count, 1.0);
        let start = Mat::from_fn(columns, count, |i, j| f64::from(values[i * count + j]));
        let found = leading_svd(self.0.as_ref(), start, ROUNDS, ENOUGH)?;
        Singular::leading(found, most)
    }

    /// Returns `‖U_iᵀ W V_i‖_F` for the first `i` directions of each side, with `i = 1` first (Hu et al. 2021, section 7.3).
    ///
    /// # Panics
    /// If the directions are in spaces of other dimensions than the weight's sides.
    pub fn norms_between(&self, left: &Directions, right: &Directions) -> Vec<f64> {
        let between = left.columns().transpose() * &self.0 * right.columns();
        let most = left.count().min(right.count());
        let mut sum = 0.0;
        let mut norms = Vec::with_capacity(most);
        for i in 0..most {
            sum += (0..=i).map(|j| between[(i, j)].powi(2)).sum::<f64>();
            sum += (0..i).map(|j| between[(j, i)].powi(2)).sum::<f64>();
            norms.push(sum.sqrt());
        }
        norms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, columns: usize) -> DenseWeight {
        let values = normal_values(3, "weight", rows * columns, 1.0);
        DenseWeight::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j]))
    }

    #[test]
    fn between_all_its_directions_a_weight_keeps_its_norm() {
        let weight = random(9, 5);
        let found = weight.singular(usize::MAX).unwrap();
        let norms = weight.norms_between(&found.left, &found.right);
        let mut squares = 0.0;
        for (norm, s) in norms.iter().zip(found.left.values()) {
            squares += s * s;
            assert!((norm - squares.sqrt()).abs() < 1e-12);
        }
        assert!((norms[4] - weight.norm()).abs() < 1e-12);
    }

    #[test]
    fn the_leading_directions_of_a_large_weight_are_those_of_the_whole_decomposition() {
        // The flat spectrum of a random matrix, the hardest for an iteration, and a steep one.
        let flat = random(800, 780);
        let root = |j: usize| ((j + 1) as f64).sqrt();
        let steep = DenseWeight::from_fn(800, 780, |i, j| flat.0[(i, j)] / root(j));
        for (name, weight, most) in [("flat", flat, 64), ("steep", steep, 4)] {
            let found = weight.singular(most).unwrap();
            let exact = Singular::leading(svd(weight.0.as_ref()).unwrap(), most).unwrap();
            assert_eq!(found.left.count(), most);
            for (found, exact) in [(&found.left, &exact.left), (&found.right, &exact.right)] {
                // A copy of the search in NumPy has errors up to 5e-9, in the last directions of the flat spectrum.
                for (found, exact) in found.values().iter().zip(exact.values()) {
                    let error = (found / exact - 1.0).abs();
                    assert!(error < 1e-6, "{name}: {found} is not {exact}");
                }
                let overlap = exact.similarity(found);
                for (i, row) in overlap.iter().enumerate().take(most) {
                    let missing = 1.0 - row[i];
                    assert!(
                        missing < 1e-6,
                        "{name}, {i}: {missing:e} of the space is missing"
                    );
                }
            }
        }
    }
}
