//! Adapted projection `y = x W + s (x' A) B`, Hu et al. 2021, equation (3).

use super::prelude::*;
use super::product::{ProductOps, weight_gradient};
use burn::tensor::{Shape, Tensor};

backend_operations! {
    /// Adapted linear layers on a backend.
    ///
    /// The default is composed of the backend's own operations; a backend with a fused kernel can override
    /// it. Implemented for the backends that the crate features name: `flex`, `ndarray`, and one for
    /// all of `wgpu`, `vulkan`, `webgpu`, `metal`, `cuda` and `rocm`, with Burn's kernel fusion where the
    /// feature `fusion` is on and without where it is off.
    pub trait LoraOps: ProductOps {
        /// Computes `x W + scale · (adapter_x A) B`, in the type of `x`.
        ///
        /// `adapter_x` is `x` itself, or `x` after the adapter's dropout.
        ///
        /// # Shapes
        /// - `x`, `adapter_x`: `[..., d_in]`
        /// - `w`: `[d_in, d_out]`, `a`: `[d_in, rank]`, `b`: `[rank, d_out]`
        /// - returns `[..., d_out]`
        ///
        /// # Gradients
        /// `w` is frozen and gets no gradient. With `g = ∂L/∂y` and `h = scale · g Bᵀ`:
        /// `∂x = g Wᵀ`, `∂adapter_x = h Aᵀ`, `∂A = adapter_xᵀ h`, `∂B = scale · (adapter_x A)ᵀ g`.
        /// `adapter_x A` is recomputed instead of kept, and no `[d_in, d_out]` delta is built.
        #[fusion(default)]
        fn lora_linear(
            x: FloatTensor<Self>,
            adapter_x: FloatTensor<Self>,
            w: FloatTensor<Self>,
            a: FloatTensor<Self>,
            b: FloatTensor<Self>,
            scale: f64,
        ) -> FloatTensor<Self> {
            composed::<Self>(x, adapter_x, w, a, b, scale)
        }
    }
}

fn composed<B: ProductOps>(
    x: FloatTensor<B>,
    adapter_x: FloatTensor<B>,
    w: FloatTensor<B>,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    scale: f64,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let base = B::apply_weight(x, w);
    // Scaling the `[..., rank]` product is cheaper than scaling the `[..., d_out]` one.
    let low = B::float_mul_scalar(B::apply_weight(adapter_x, a), scale.into());
    let update = B::apply_weight(low, b);
    B::float_add(cast::<B>(base, dtype), cast::<B>(update, dtype))
}

#[cfg(feature = "flex")]
impl LoraOps for burn::backend::Flex {
    /// Adds the update in place to the product with the weight.
    fn lora_linear(
        x: FloatTensor<Self>,
        adapter_x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        use super::contiguous::are_plain_f32;
        use super::gemm::{Matrix, add_product, append_product};
        use burn::backend::ops::FloatTensorOps;
        use burn::tensor::TensorData;

        if !are_plain_f32(&[&x, &adapter_x, &w, &a, &b]) {
            return composed::<Self>(x, adapter_x, w, a, b, scale);
        }
        let [d_in, d_out] = w.shape().dims();
        let mut shape = x.shape();
        let rows = shape.num_elements() / d_in;
        let last = shape.num_dims() - 1;
        shape[last] = d_out;
        let [x, adapter_x] =
            [x, adapter_x].map(|x| Self::float_reshape(x, Shape::new([rows, d_in])));
        let (x, adapter_x) = (Matrix::from_tensor(&x), Matrix::from_tensor(&adapter_x));
        let [w, a, b] = [&w, &a, &b].map(Matrix::from_tensor);
        let (mut low, mut y) = (Vec::new(), Vec::new());
        append_product(&mut low, adapter_x, a);
        append_product(&mut y, x, w);
        let low = Matrix::new(&low, [rows, a.shape()[1]]);
        add_product(&mut y, scale as f32, low, b);
        FloatTensor::<Self>::from_data(TensorData::new(y, shape))
    }
}

impl<B: Backend + LoraOps, C: CheckpointStrategy> LoraOps for Autodiff<B, C> {
    fn lora_linear(
        x: FloatTensor<Self>,
        adapter_x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let inputs = [&x, &adapter_x, &a, &b];
        let mut operation =
            Operation::<B, C, _, 4>::new(inputs, |pass, grad, (saved, w, scale)| {
                backward(pass, grad, saved, || w, scale);
            });
        // Of `x` only the adapter's copy is needed; without dropout the two are one tensor.
        let saved = [&adapter_x, &a, &b].map(|input| operation.save(input));
        let [x, adapter_x, w, a, b] = [x, adapter_x, w, a, b].map(|tensor| tensor.into_primitive());
        let state = (saved, w.clone(), scale);
        operation.finish(state, B::lora_linear(x, adapter_x, w, a, b, scale))
    }
}

/// Registers the gradients of an adapted layer. `saved` are the adapter's input, `A` and `B`.
pub(super) fn backward<B: ProductOps>(
    pass: &mut BackwardPass<'_, B, 4>,
    grad: FloatTensor<B>,
    saved: [NodeId; 3],
    w: impl FnOnce() -> FloatTensor<B>,
    scale: f64,
) {
    let [adapter_x, a, b] = saved.map(|input| pass.saved(input));
    let [x_dtype, a_dtype, b_dtype] = [&adapter_x, &a, &b].map(|input| input.dtype());
    pass.register(3, || {
        let low = B::apply_weight(adapter_x.clone(), a.clone());
        let low = B::float_mul_scalar(low, scale.into());
        cast::<B>(weight_gradient::<B>(low, grad.clone()), b_dtype)
    });
    if pass.needs(1) || pass.needs(2) {
        let grad_low = B::apply_weight(grad.clone(), B::float_swap_dims(b, 0, 1));
        let grad_low = B::float_mul_scalar(grad_low, scale.into());
        pass.register(2, || {
            cast::<B>(weight_gradient::<B>(adapter_x, grad_low.clone()), a_dtype)
        });
        pass.register(1, || {
            cast::<B>(
                B::apply_weight(grad_low, B::float_swap_dims(a, 0, 1)),
                x_dtype,
            )
        });
    }
    pass.register(0, || input_gradient::<B>(w(), grad));
}

/// Computes `g Wᵀ`, in the type of `g`, which is that of the layer's input and output.
fn input_gradient<B: ProductOps>(w: FloatTensor<B>, grad: FloatTensor<B>) -> FloatTensor<B> {
    let [d_in, d_out] = w.shape().dims();
    let mut shape = grad.shape();
    let rows = shape.num_elements() / d_out;
    let last = shape.num_dims() - 1;
    shape[last] = d_in;
    let dtype = grad.dtype();
    let grad = B::float_reshape(grad, Shape::new([rows, d_out]));
    let product = B::multiply(grad, B::float_swap_dims(w, 0, 1));
    B::float_reshape(cast::<B>(product, dtype), shape)
}

/// Applies [`LoraOps::lora_linear`] to tensors, with an optional bias `[d_out]`.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::lora_linear;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_floats([[1.0, 2.0]], &device);
/// let w = Tensor::<2>::from_floats([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]], &device);
/// let a = Tensor::<2>::from_floats([[1.0], [1.0]], &device);
/// let b = Tensor::<2>::from_floats([[0.5, 0.0, 1.0]], &device);
/// // x W = [1, 2, 2]; x A = 3; scale 2 · 3 · B = [3, 0, 6].
/// let y = lora_linear(x.clone(), x, w, a, b, None, 2.0);
/// assert_eq!(y.into_data().to_vec::<f32>().unwrap(), [4.0, 2.0, 8.0]);
/// ```
///
/// # Panics
/// Panics on shapes that do not match, and on a backend whose feature of this crate is off.
pub fn lora_linear<const D: usize>(
    x: Tensor<D>,
    adapter_x: Tensor<D>,
    w: Tensor<2>,
    a: Tensor<2>,
    b: Tensor<2>,
    bias: Option<Tensor<1>>,
    scale: f64,
) -> Tensor<D> {
    let y: Tensor<D> = Tensor::from_dispatch(<Dispatch as LoraOps>::lora_linear(
        x.into_dispatch(),
        adapter_x.into_dispatch(),
        w.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        scale,
    ));
    match bias {
        Some(bias) => {
            let dtype = y.dtype();
            y + bias.cast(dtype).unsqueeze()
        }
        None => y,
    }
}
