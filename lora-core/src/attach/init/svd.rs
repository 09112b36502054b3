//! Singular value decomposition, on the host and in f64.

use faer::{Mat, MatRef};

/// `U`, the singular values in descending order, and `V`.
pub(crate) type Svd = (Mat<f64>, Vec<f64>, Mat<f64>);

/// Computes the thin decomposition; `None` if the matrix is not finite.
pub(crate) fn svd(m: MatRef<'_, f64>) -> Option<Svd> {
    let svd = m.thin_svd().ok()?;
    let s: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let finite = s.iter().all(|s| s.is_finite());
    finite.then(|| (svd.U().to_owned(), s, svd.V().to_owned()))
}
