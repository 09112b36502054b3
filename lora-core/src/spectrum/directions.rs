//! Orthonormal directions in descending order of their singular values: [`Directions`].

use super::svd::{Svd, product_svd, svd};
use crate::random::normal_values;
use faer::{Mat, MatRef};

/// Orthonormal directions, in descending order of their singular values. Those whose values are rounding errors of f32 beside the
/// largest are left out.
#[derive(Clone, Debug)]
pub struct Directions {
    columns: Mat<f64>,
    values: Vec<f64>,
}

/// Left and right singular directions of a matrix, with equal values.
#[derive(Clone, Debug)]
pub struct Singular {
    /// Left-singular directions, in the space of the outputs.
    pub left: Directions,
    /// Right-singular directions, in the space of the inputs.
    pub right: Directions,
}

impl Directions {
    /// Returns the right-singular directions of a row-major matrix `[rows, columns]`, which span its rows; `None` if it is zero or
    /// not finite.
    ///
    /// # Panics
    /// If there are not as many values as the shape has.
    pub fn of_rows(values: &[f32], [rows, columns]: [usize; 2]) -> Option<Self> {
        assert_eq!(values.len(), rows * columns, "[{rows}, {columns}]");
        let matrix = Mat::from_fn(columns, rows, |i, j| f64::from(values[j * columns + i]));
        Self::spanning(matrix.as_ref())
    }

    /// Returns the right-singular directions of a random Gaussian matrix `[count, dimension]`, which depend on `seed` and `name`
    /// alone.
    pub fn random(seed: u64, name: &str, count: usize, dimension: usize) -> Option<Self> {
        let values = normal_values(seed, name, count * dimension, 1.0);
        Self::of_rows(&values, [count, dimension])
    }

    /// Returns the left-singular directions of a matrix, which span its columns.
    pub(crate) fn spanning(m: MatRef<'_, f64>) -> Option<Self> {
        if m.nrows() == 0 || m.ncols() == 0 {
            return None;
        }
        let qr = m.qr();
        let (u, values, _) = svd(qr.thin_R())?;
        Self::leading(qr.compute_thin_Q() * u, &values, usize::MAX)
    }

    /// Returns at most `most` directions that are not rounding errors; `None` without any.
    fn leading(columns: Mat<f64>, values: &[f64], most: usize) -> Option<Self> {
        let largest = values.first().copied()?;
        let is_real = |&&s: &&f64| s > largest * f64::from(f32::EPSILON);
        let count = values.iter().filter(is_real).count().min(most);
        (count > 0).then(|| Self {
            columns: columns.subcols(0, count).to_owned(),
            values: values[..count].to_vec(),
        })
    }

    /// Returns the number of directions.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Returns the singular values.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    pub(super) fn columns(&self) -> MatRef<'_, f64> {
        self.columns.as_ref()
    }

    /// Returns the subspace similarity `φ(i, j) = ‖U_iᵀ U_j′‖²_F / min(i, j)` of the first `i` directions and the first `j` of
    /// another, from 0 to 1, with `φ(1, 1)` first (Hu et al. 2021, equation 4): rows for `i`, columns for `j`.
    ///
    /// # Panics
    /// If the directions are in spaces of different dimensions.
    pub fn similarity(&self, other: &Self) -> Vec<Vec<f64>> {
        let overlap = self.columns.transpose() * &other.columns;
        let mut above = vec![0.0; other.count()];
        let mut grid = Vec::with_capacity(self.count());
        for i in 0..self.count() {
            let (mut row, mut sum) = (Vec::with_capacity(other.count()), 0.0);
            for (j, above) in above.iter_mut().enumerate() {
                sum += overlap[(i, j)].powi(2);
                *above += sum;
                row.push((*above / (i.min(j) + 1) as f64).min(1.0));
            }
            grid.push(row);
        }
        grid
    }
}

impl Singular {
    /// Returns the singular directions of `scale · B A`, without a matrix of its size; `None` if it is zero or not finite.
    pub(crate) fn of_product(b: MatRef<'_, f64>, a: MatRef<'_, f64>, scale: f64) -> Option<Self> {
        let (u, mut s, v) = product_svd(b, a)?;
        // The sign of a negative scale belongs to one of the two sides; no norm depends on it.
        s.iter_mut().for_each(|s| *s *= scale.abs());
        Self::leading((u, s, v), usize::MAX)
    }

    /// Returns at most `most` of the directions of a decomposition.
    pub(super) fn leading((u, s, v): Svd, most: usize) -> Option<Self> {
        Some(Self {
            left: Directions::leading(u, &s, most)?,
            right: Directions::leading(v, &s, most)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_space_is_wholly_in_it_and_random_ones_hardly() {
        let rows = normal_values(1, "rows", 6 * 200, 1.0);
        let all = Directions::of_rows(&rows, [6, 200]).unwrap();
        let part = Directions::of_rows(&rows[200..600], [2, 200]).unwrap();
        let inside = all.similarity(&part);
        assert!((inside[5][0] - 1.0).abs() < 1e-12 && (inside[5][1] - 1.0).abs() < 1e-12);
        assert!((all.similarity(&all)[3][2] - 1.0).abs() < 1e-12);
        let other = Directions::random(2, "other", 6, 200).unwrap();
        // Two random spaces share 6/200 of the smaller.
        assert!(all.similarity(&other)[5][5] < 0.1);
    }

    #[test]
    fn dependent_rows_are_no_directions() {
        let twice = Directions::of_rows(&[1.0, 2.0, -2.0, 2.0, 4.0, -4.0], [2, 3]).unwrap();
        assert_eq!(twice.count(), 1);
        assert!((twice.values()[0] - 45f64.sqrt()).abs() < 1e-12);
        assert!(Directions::of_rows(&[0.0; 6], [2, 3]).is_none());
        assert!(Directions::of_rows(&[f32::NAN; 6], [2, 3]).is_none());
    }

    #[test]
    fn the_sign_of_a_scale_changes_no_singular_value() {
        let b = Mat::from_fn(3, 1, |i, _| [2.0, 0.0, 0.0][i]);
        let a = Mat::from_fn(1, 2, |_, j| [0.0, 3.0][j]);
        let found = Singular::of_product(b.as_ref(), a.as_ref(), -0.5).unwrap();
        assert!((found.left.values()[0] - 3.0).abs() < 1e-12);
    }
}
