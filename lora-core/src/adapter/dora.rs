//! Magnitude and direction: DoRA (Liu et al. 2024, arXiv 2402.09353).

use crate::ops::multiply;
use burn::tensor::Tensor;

/// Returns the norm `‖W + s A B‖` of every output, `[d_out]`, without gradient (section 4.3).
///
/// The dense delta is not built. With `w_j` and `b_j` the columns of `W` and `B`,
/// `‖w_j + s A b_j‖² = ‖w_j‖² + 2 s b_j · (Aᵀ w_j) + s² b_j · (AᵀA b_j)`.
///
/// # Shapes
/// - `w`: `[d_in, d_out]`, `a`: `[d_in, rank]`, `b`: `[rank, d_out]`
pub(crate) fn norms(w: Tensor<2>, a: Tensor<2>, b: Tensor<2>, scale: f64) -> Tensor<1> {
    let (w, a, b) = (w.detach(), a.detach(), b.detach());
    let d_out = b.dims()[1];
    let low = a.clone().transpose();
    let cross = multiply(low.clone(), w.clone()).mul_scalar(2.0 * scale); // [rank, d_out]
    let square = multiply(multiply(low, a), b.clone()).mul_scalar(scale * scale);
    let change = (b * (cross + square)).sum_dim(0); // [1, d_out]
    let sum = w.square().sum_dim(0) + change;
    // Rounding can make a norm of nearly zero negative.
    sum.clamp_min(0.0).sqrt().reshape([d_out])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution, Tolerance};

    #[test]
    fn norms_are_those_of_the_columns_of_the_sum() {
        let device = Device::flex();
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let (w, a, b) = (random([7, 5]), random([7, 3]), random([3, 5]));
        let dense = w.clone() + a.clone().matmul(b.clone()).mul_scalar(0.7);
        let expected = dense.square().sum_dim(0).sqrt().reshape([5]);
        norms(w, a, b, 0.7)
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::relative(1e-5));
    }

    #[test]
    fn a_column_that_the_update_cancels_has_norm_zero() {
        let device = Device::flex();
        let w = Tensor::<2>::from_floats([[0.3], [0.1]], &device);
        let a = Tensor::<2>::from_floats([[3.0], [1.0]], &device);
        let b = Tensor::<2>::from_floats([[-0.1]], &device);
        let norm: f32 = norms(w, a, b, 1.0).into_scalar();
        assert!((0.0..1e-3).contains(&norm), "{norm}");
    }
}
