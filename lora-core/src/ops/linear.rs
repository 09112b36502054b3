//! Linear layer, `y = x W + b`.
//!
//! Most backends use Burn's own operations. The CPU backend initializes the rows with the bias and adds the product to
//! them, one pass instead of three.

use super::prelude::*;
use super::product::ProductOps;
use burn::tensor::{DType, Shape, Tensor};

backend_operations! {
    /// Linear layers on a backend.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`, `w`: `[d_in, d_out]`, `bias`: `[d_out]`
    pub trait LinearOps: ProductOps {
        /// Computes `x W + b`, in the type of `x`.
        ///
        /// # Gradients
        /// `∂x = g Wᵀ`; `∂W = xᵀ g` and `∂b = Σ g` if they are trained.
        #[fusion(default)]
        fn project_from(
            x: FloatTensor<Self>,
            w: FloatTensor<Self>,
            bias: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            composed::<Self>(x, w, bias)
        }
    }
}

fn composed<B: ProductOps>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    let (dtype, [d_out]) = (x.dtype(), bias.shape().dims());
    let bias = B::float_reshape(cast::<B>(bias, dtype), Shape::new([1, d_out]));
    B::float_add(cast::<B>(B::multiply(x, w), dtype), bias)
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, LinearOps, composed};
    use crate::ops::contiguous::{are_plain_f32, contiguous};
    use crate::ops::gemm::{Matrix, add_product};
    use crate::ops::kernels;
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    impl LinearOps for Flex {
        fn project_from(
            x: FloatTensor<Self>,
            w: FloatTensor<Self>,
            bias: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            if !are_plain_f32(&[&x, &w, &bias]) {
                return composed::<Self>(x, w, bias);
            }
            let bias = contiguous(bias);
            let (x, w) = (Matrix::from_tensor(&x), Matrix::from_tensor(&w));
            let shape = [x.shape()[0], w.shape()[1]];
            let mut y = kernels::repeat_row(bias.storage::<f32>(), shape[0]);
            add_product(&mut y, 1.0, x, w);
            FloatTensor::<Self>::from_data(TensorData::new(y, shape))
        }
    }
}

impl<B: Backend + LinearOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn project_from(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let mut operation = Operation::<B, C, _, 3>::new([&x, &w, &bias], backward);
        // The input is kept only if the weight is trained.
        let input = w.is_tracked().then(|| operation.save(&x));
        let dtype = bias.dtype();
        let [x, w, bias] = [x, w, bias].map(|tensor| tensor.into_primitive());
        operation.finish((input, w.clone(), dtype), B::project_from(x, w, bias))
    }
}

fn backward<B: Backend + LinearOps>(
    pass: &mut BackwardPass<'_, B, 3>,
    grad: FloatTensor<B>,
    (x, w, bias_dtype): (Option<NodeId>, FloatTensor<B>, DType),
) {
    pass.register(2, || {
        cast::<B>(B::linear_bias_backward(grad.clone()), bias_dtype)
    });
    if let Some(x) = x {
        let (x, dtype) = (pass.saved(x), w.dtype());
        pass.register(1, || {
            cast::<B>(
                B::multiply(B::float_swap_dims(x, 0, 1), grad.clone()),
                dtype,
            )
        });
    }
    // The gradient has the type of the output, which is that of `x`.
    let dtype = grad.dtype();
    pass.register(0, || {
        cast::<B>(B::multiply(grad, B::float_swap_dims(w, 0, 1)), dtype)
    });
}

/// Computes `x W + b`, in the type of `x`.
///
/// # Shapes
/// - `x`: `[..., d_in]`, `w`: `[d_in, d_out]`, `bias`: `[d_out]`
/// - returns `[..., d_out]`
///
/// # Panics
/// Panics on shapes that do not match, and on a backend whose feature of this crate is off.
pub fn linear<const D: usize>(x: Tensor<D>, w: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    if let DType::QFloat(_) = w.dtype() {
        return burn::tensor::module::linear(x, w, bias);
    }
    let Some(bias) = bias else {
        return Tensor::from_dispatch(<Dispatch as ProductOps>::apply_weight(
            x.into_dispatch(),
            w.into_dispatch(),
        ));
    };
    let ([d_in, d_out], [width]) = (w.dims(), bias.dims());
    let mut shape: [usize; D] = x.dims();
    assert_eq!(
        (shape[D - 1], width),
        (d_in, d_out),
        "features and biases of a layer of [{d_in}, {d_out}]"
    );
    let rows = shape[..D - 1].iter().product();
    let y: Tensor<2> = Tensor::from_dispatch(<Dispatch as LinearOps>::project_from(
        x.reshape([rows, d_in]).into_dispatch(),
        w.into_dispatch(),
        bias.into_dispatch(),
    ));
    shape[D - 1] = d_out;
    y.reshape(shape)
}
