//! Matrix products: all those of a training step.
//!
//! Operands of different float types are cast to the wider one. Burn 0.22.1 does not: on GPUs it reads the right operand as if it
//! had the type of the left one, and the result is silently wrong.
//!
//! In [mixed precision](super::with_mixed_precision) a right operand of the 16-bit type stays as it is: it is a frozen weight.

use super::precision::mixed;
use super::prelude::*;
#[cfg(feature = "gpu")]
use super::product_kernel;
use super::stages::reduce_rows;
use super::tuning::is_fixed;
use burn::tensor::{DType, Shape, Tensor};

backend_operations! {
    /// Matrix products on a backend.
    pub trait ProductOps {
        /// Multiplies matrices, in the wider of their types. In mixed precision, the product of f32 with the 16-bit type has 16-bit
        /// operands, and sums and result in f32.
        ///
        /// # Shapes
        /// - `lhs`: `[..., m, k]`, `rhs`: `[..., k, n]`; the leading axes are equal or 1
        /// - returns `[..., m, n]`
        #[fusion(default)]
        fn multiply(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
            composed::<Self>(lhs, rhs)
        }

        /// Multiplies matrices of one type by a kernel that depends on the shapes only: nothing is measured.
        #[fusion(dtype = lhs, shape = product_shape(lhs, rhs))]
        fn multiply_by_fixed_kernel(
            lhs: FloatTensor<Self>,
            rhs: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            Self::float_matmul(lhs, rhs)
        }

        /// Multiplies matrices of one 16-bit type, with sums and result in f32.
        #[fusion(dtype = DType::F32, shape = product_shape(lhs, rhs))]
        fn multiply_to_f32(
            lhs: FloatTensor<Self>,
            rhs: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            // Widening is exact.
            Self::float_matmul(cast::<Self>(lhs, DType::F32), cast::<Self>(rhs, DType::F32))
        }

        /// Computes `x W`, in the type of [`multiply`](Self::multiply).
        ///
        /// # Shapes
        /// - `x`: `[..., d_in]`, `w`: `[d_in, d_out]`
        /// - returns `[..., d_out]`
        ///
        /// # Gradients
        /// `∂x = g Wᵀ`, `∂W = xᵀ g`.
        #[fusion(default)]
        fn apply_weight(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
            if !is_fixed() && !is_mixed(x.dtype(), w.dtype()) {
                let [x, w] = in_common_dtype::<Self>(x, w);
                return Self::linear(x, w, None);
            }
            by_rows::<Self>(x, w)
        }
    }
    cube {
        fn multiply_by_fixed_kernel(
            lhs: FloatTensor<Self>,
            rhs: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            use burn::backend::ops::FloatTensorOps;
            use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
            let dtype = lhs.dtype();
            if lhs.shape().num_elements() == 0 || rhs.shape().num_elements() == 0 {
                return Self::float_matmul(lhs, rhs);
            }
            if product_kernel::suits(&lhs, &rhs) {
                return product_kernel::multiply(lhs, rhs);
            }
            matmul(lhs, rhs, None, MatmulStrategy::Cube, dtype)
                .unwrap_or_else(|error| panic!("a product of matrices: {error:?}"))
        }

        fn multiply_to_f32(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
            use burn::backend::ops::FloatTensorOps;
            use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
            if lhs.shape().num_elements() == 0 || rhs.shape().num_elements() == 0 {
                let [lhs, rhs] = [lhs, rhs].map(|operand| cast::<Self>(operand, DType::F32));
                return Self::float_matmul(lhs, rhs);
            }
            let strategy = if is_fixed() {
                MatmulStrategy::Cube
            } else {
                MatmulStrategy::default()
            };
            matmul(lhs, rhs, None, strategy, DType::F32)
                .unwrap_or_else(|error| panic!("a product of matrices in 16 bits: {error:?}"))
        }
    }
}

/// Multiplies matrices by Burn's products, in the wider of their types.
fn composed<B: ProductOps>(lhs: FloatTensor<B>, rhs: FloatTensor<B>) -> FloatTensor<B> {
    if is_mixed(lhs.dtype(), rhs.dtype()) {
        return mixed_product::<B>(lhs, rhs);
    }
    let [lhs, rhs] = in_common_dtype::<B>(lhs, rhs);
    if is_fixed() {
        B::multiply_by_fixed_kernel(lhs, rhs)
    } else {
        B::float_matmul(lhs, rhs)
    }
}

/// Computes `x W` for `x`: `[..., d_in]` as one product of matrices.
fn by_rows<B: ProductOps>(x: FloatTensor<B>, w: FloatTensor<B>) -> FloatTensor<B> {
    let mut shape = x.shape();
    let last = shape.num_dims() - 1;
    shape[last] = w.shape()[1];
    B::float_reshape(B::multiply(as_rows::<B>(x), w), shape)
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, ProductOps, by_rows, composed};
    use crate::ops::contiguous::are_plain_f32;
    use crate::ops::gemm::{Matrix, append_product};
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::TensorData;

    /// Splits products so that each thread reads its own part of a weight.
    impl ProductOps for Flex {
        fn multiply(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self> {
            let are_matrices = [&lhs, &rhs].map(|side| side.shape().num_dims()) == [2, 2];
            if !are_matrices || !are_plain_f32(&[&lhs, &rhs]) {
                return composed::<Self>(lhs, rhs);
            }
            let (lhs, rhs) = (Matrix::from_tensor(&lhs), Matrix::from_tensor(&rhs));
            let shape = [lhs.shape()[0], rhs.shape()[1]];
            let mut product = Vec::new();
            append_product(&mut product, lhs, rhs);
            FloatTensor::<Self>::from_data(TensorData::new(product, shape))
        }

        fn apply_weight(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
            by_rows::<Self>(x, w)
        }
    }
}

impl<B: ProductOps, C: CheckpointStrategy> ProductOps for Autodiff<B, C> {
    fn apply_weight(x: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        let mut operation = Operation::<B, C, _, 2>::new([&x, &w], apply_backward);
        // Each operand is needed only for the gradient of the other.
        let dtypes = [x.dtype(), w.dtype()];
        let kept_x = w.is_tracked().then(|| operation.save(&x));
        let kept_w = x.is_tracked().then(|| operation.save(&w));
        let y = B::apply_weight(x.into_primitive(), w.into_primitive());
        operation.finish((kept_x, kept_w, dtypes), y)
    }
}

fn apply_backward<B: ProductOps>(
    pass: &mut BackwardPass<'_, B, 2>,
    grad: FloatTensor<B>,
    (x, w, [x_dtype, w_dtype]): (Option<NodeId>, Option<NodeId>, [DType; 2]),
) {
    if let Some(w) = w {
        let w = pass.saved(w);
        pass.register(0, || {
            cast::<B>(
                B::apply_weight(grad.clone(), B::float_swap_dims(w, 0, 1)),
                x_dtype,
            )
        });
    }
    if let Some(x) = x {
        let x = pass.saved(x);
        pass.register(1, || cast::<B>(weight_gradient::<B>(x, grad), w_dtype));
    }
}

/// Computes `xᵀ g`, summed over all rows of `x`: `[..., d_in]` and `grad`: `[..., d_out]`.
pub(super) fn weight_gradient<B: ProductOps>(
    x: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    B::multiply(
        B::float_swap_dims(as_rows::<B>(x), 0, 1),
        as_rows::<B>(grad),
    )
}

/// Reshapes `[..., d]` to `[rows, d]`.
pub(super) fn as_rows<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let shape = tensor.shape();
    if shape.num_dims() == 2 {
        return tensor;
    }
    let d = shape[shape.num_dims() - 1];
    B::float_reshape(tensor, Shape::new([shape.num_elements() / d.max(1), d]))
}

/// Returns true if a product has operands in 16 bits: in mixed precision, if the right one is a weight in that type.
fn is_mixed(lhs: DType, rhs: DType) -> bool {
    mixed().is_some_and(|half| lhs == DType::F32 && rhs == half.dtype())
}

/// Largest magnitude of an operand in f16. Products of two such numbers are far below the largest f32, and the smallest
/// normal f16 is 2⁻²⁹ of it.
const F16_RANGE: f64 = 32768.0;

/// Multiplies f32 with a matrix in 16 bits, in mixed precision.
fn mixed_product<B: ProductOps>(x: FloatTensor<B>, w: FloatTensor<B>) -> FloatTensor<B> {
    let half = w.dtype();
    if half != DType::F16 || x.shape().num_elements() == 0 {
        return B::multiply_to_f32(cast::<B>(x, half), w);
    }
    let mut shape = x.shape(); // [..., m, k]
    let last = shape.num_dims() - 1;
    shape[last] = 1;
    let largest = reduce_rows::<B>(as_rows::<B>(x.clone()), |part| {
        B::float_max_abs_dim(part, 1)
    });
    let largest = B::float_reshape(largest, shape); // [..., m, 1]
    let unit = B::float_mul_scalar(largest, (1.0 / F16_RANGE).into());
    // A row of zeros has some unit too.
    let unit = B::float_add_scalar(unit, 1e-30.into());
    let x = cast::<B>(B::float_div(x, unit.clone()), half);
    B::float_mul(B::multiply_to_f32(x, w), unit)
}

/// Casts both operands to the wider type.
fn in_common_dtype<B: Backend>(lhs: FloatTensor<B>, rhs: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let dtype = common_dtype(lhs.dtype(), rhs.dtype());
    [lhs, rhs].map(|operand| cast::<B>(operand, dtype))
}

/// Returns the type that holds the values of both: f32 for f16 and bf16, neither of which holds those of the other.
fn common_dtype(lhs: DType, rhs: DType) -> DType {
    match lhs.size().cmp(&rhs.size()) {
        std::cmp::Ordering::Greater => lhs,
        std::cmp::Ordering::Less => rhs,
        std::cmp::Ordering::Equal if lhs == rhs => lhs,
        std::cmp::Ordering::Equal => DType::F32,
    }
}

/// Returns the shape of a product.
#[cfg(all(feature = "fusion", feature = "gpu"))]
fn product_shape(lhs: &Shape, rhs: &Shape) -> Shape {
    let last = lhs.num_dims() - 1;
    let mut shape = lhs.clone();
    for axis in 0..last - 1 {
        shape[axis] = lhs[axis].max(rhs[axis]);
    }
    shape[last] = rhs[last];
    shape
}

/// Multiplies matrices, in the wider of their types.
///
/// # Shapes
/// - `lhs`: `[..., m, k]`, `rhs`: `[..., k, n]`; the leading axes are equal or 1
/// - returns `[..., m, n]`
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{DType, Device, Tensor};
/// use lora_core::ops::multiply;
///
/// let device = Device::flex();
/// let lhs = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
/// let rhs = Tensor::<2>::from_floats([[3.0], [0.5]], &device).cast(DType::F16);
/// let product = multiply(lhs, rhs);
/// assert_eq!(product.into_data().to_vec::<f32>().unwrap(), [4.0]);
/// ```
///
/// # Panics
/// Panics on shapes that do not match, and on a backend whose feature of this crate is off.
pub fn multiply<const D: usize>(lhs: Tensor<D>, rhs: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as ProductOps>::multiply(
        lhs.into_dispatch(),
        rhs.into_dispatch(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wider_type_holds_the_values_of_both() {
        assert_eq!(common_dtype(DType::F16, DType::F32), DType::F32);
        assert_eq!(common_dtype(DType::F64, DType::BF16), DType::F64);
        assert_eq!(common_dtype(DType::F16, DType::BF16), DType::F32);
        assert_eq!(common_dtype(DType::BF16, DType::BF16), DType::BF16);
    }
}
