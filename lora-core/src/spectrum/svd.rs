//! Singular value decompositions, on the host and in f64.

use faer::{Mat, MatRef};

/// `U`, the singular values in descending order, and `V`.
pub(crate) type Svd = (Mat<f64>, Vec<f64>, Mat<f64>);

/// Number of directions beyond those asked for in [`leading_svd`], whose last directions are the least exact (Halko, Martinsson
/// and Tropp 2011, section 4.3).
pub(crate) const OVERSAMPLING: usize = 8;

/// Computes the thin decomposition; `None` if the matrix is not finite.
pub(crate) fn svd(m: MatRef<'_, f64>) -> Option<Svd> {
    let svd = m.thin_svd().ok()?;
    let s: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let finite = s.iter().all(|s| s.is_finite());
    finite.then(|| (svd.U().to_owned(), s, svd.V().to_owned()))
}

/// Decomposes `B A` through a matrix of its rank: `B = Q_b R_b`, `Aᵀ = Q_a R_a`, and
/// `R_b R_aᵀ = U S Vᵀ`.
pub(crate) fn product_svd(b: MatRef<'_, f64>, a: MatRef<'_, f64>) -> Option<Svd> {
    let (qr_b, qr_a) = (b.qr(), a.transpose().qr());
    let core = qr_b.thin_R() * qr_a.thin_R().transpose();
    let (u, s, v) = svd(core.as_ref())?;
    Some((qr_b.compute_thin_Q() * u, s, qr_a.compute_thin_Q() * v))
}

/// Computes the largest singular values and their vectors by subspace iteration from a random start `[columns, count]` (Halko et
/// al. 2011, algorithms 4.4 and 5.1). It ends after `rounds`, or when a round adds less than this share to the squares
/// of the values.
pub(crate) fn leading_svd(
    w: MatRef<'_, f64>,
    start: Mat<f64>,
    rounds: usize,
    enough: f64,
) -> Option<Svd> {
    let basis = |m: Mat<f64>| m.qr().compute_thin_Q();
    let mut q = basis(w * start);
    let mut before = 0.0;
    for _ in 0..rounds {
        let image = w.transpose() * &q;
        let squares = image.norm_l2().powi(2);
        if enough > 0.0 && squares - before < enough * squares {
            break;
        }
        before = squares;
        q = basis(w * basis(image));
    }
    let (u, s, v) = svd((q.transpose() * w).as_ref())?;
    Some((q * u, s, v))
}
