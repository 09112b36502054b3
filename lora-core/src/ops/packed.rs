//! Linear layer with a packed, frozen weight: QLoRA, Dettmers et al. 2023 (arXiv 2305.14314), equation (5), and floats of 16
//! bits.
//!
//! The weight is dequantized for each product, in the forward pass and again in the backward pass, and freed in
//! between. The backward pass keeps only the packed values, which the layer owns anyway.

use super::packed_composed::composed_unpack;
pub use super::packed_format::{PackedFormat, PackedLayout};
use super::precision::mixed;
use super::prelude::*;
use super::{LinearOps, LoraOps, lora_linear};
use burn::backend::AutodiffBackend;
#[allow(unused_imports, reason = "without a backend, nothing here has a body")]
use burn::tensor::{DType, Shape};
use burn::tensor::{Int, Tensor};

backend_operations! {
    /// Packed weights on a backend.
    ///
    /// Values are packed into 32-bit integers, the first in the lowest bits. With [`PackedFormat::Nf4`] and
    /// [`PackedFormat::Int8`], 64 values share a scale, and the values are padded to a full block; with
    /// [`PackedFormat::F16`] and [`PackedFormat::Bf16`] they are padded to a full integer, and the tensor of scales only
    /// tells the element type.
    pub trait PackedOps: LinearOps + LoraOps {
        /// Dequantizes the weight to `[d_in, d_out]`. This is exact for floats of 16 bits, subnormal bf16 excepted on a
        /// device that flushes them to zero.
        ///
        /// # Shapes
        /// - `packed`: `[blocks · 2 · bits]`, `scales`: `[blocks]`; with floats of 16 bits `[values / 2]` and any
        #[fusion(default)]
        fn unpack(
            packed: IntTensor<Self>,
            scales: FloatTensor<Self>,
            layout: PackedLayout,
        ) -> FloatTensor<Self> {
            composed_unpack::<Self>(packed, scales, layout)
        }

        /// Returns packed floats of 16 bits as a tensor of their type, in the order of the values:
        /// `stored`. GPUs read the integers as they are.
        ///
        /// # Panics
        /// May panic on a format with scales.
        #[fusion(dtype = layout.half_dtype(), shape = Shape::new(layout.stored()))]
        fn stored_halves(
            packed: IntTensor<Self>,
            scales: FloatTensor<Self>,
            layout: PackedLayout,
        ) -> FloatTensor<Self> {
            cast::<Self>(Self::unpack(packed, scales, layout.in_order()), layout.half_dtype())
        }

        /// Computes `x W` with the packed `W`, in the type of `x`.
        ///
        /// # Shapes
        /// - `x`: `[..., d_in]`, the others as for [`unpack`](Self::unpack)
        /// - returns `[..., d_out]`
        ///
        /// # Gradients
        /// `∂x = g Wᵀ`, for which the weight is dequantized again. The weight is frozen and gets no gradient.
        #[fusion(default)]
        fn packed_linear(
            x: FloatTensor<Self>,
            packed: IntTensor<Self>,
            scales: FloatTensor<Self>,
            layout: PackedLayout,
        ) -> FloatTensor<Self> {
            let dtype = x.dtype();
            cast::<Self>(Self::apply_weight(x, operand::<Self>(packed, scales, layout)), dtype)
        }

        /// Computes `x W + b` with the packed `W`, as [`LinearOps::project_from`] does with a dense one.
        ///
        /// # Shapes
        /// - `x`: `[rows, d_in]`, `bias`: `[d_out]`
        #[fusion(default)]
        fn packed_project_from(
            x: FloatTensor<Self>,
            packed: IntTensor<Self>,
            scales: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            layout: PackedLayout,
        ) -> FloatTensor<Self> {
            Self::project_from(x, operand::<Self>(packed, scales, layout), bias)
        }

        /// Computes `x W + scale · (adapter_x A) B` with the packed `W`, as [`LoraOps::lora_linear`] does with a dense one.
        ///
        /// # Shapes
        /// - `x`, `adapter_x`: `[..., d_in]`, `a`: `[d_in, rank]`, `b`: `[rank, d_out]`
        /// - returns `[..., d_out]`
        #[fusion(default)]
        #[allow(clippy::too_many_arguments)] // The macro accepts tensors, not structures of them.
        fn packed_lora_linear(
            x: FloatTensor<Self>,
            adapter_x: FloatTensor<Self>,
            packed: IntTensor<Self>,
            scales: FloatTensor<Self>,
            a: FloatTensor<Self>,
            b: FloatTensor<Self>,
            layout: PackedLayout,
            scale: f64,
        ) -> FloatTensor<Self> {
            let w = operand::<Self>(packed, scales, layout);
            Self::lora_linear(x, adapter_x, w, a, b, scale)
        }
    }
    cube {
        fn stored_halves(
            packed: IntTensor<Self>,
            _scales: FloatTensor<Self>,
            layout: PackedLayout,
        ) -> FloatTensor<Self> {
            use burn_cubecl::{kernel::into_contiguous, tensor::CubeTensor};
            assert!(
                packed.dtype == DType::I32 && layout.format.is_half(),
                "floats of 16 bits are packed into integers of 32"
            );
            // The same memory: the first value is in the lower half of an integer, which is its first half in memory.
            let packed = into_contiguous(packed);
            let (shape, dtype) = (Shape::new(layout.stored()), layout.half_dtype());
            CubeTensor::new_contiguous(packed.client, packed.device, shape, packed.handle, dtype)
        }
    }
}

/// Returns a packed weight as an operand of products, `[d_in, d_out]`: in f32, or in mixed precision in its 16-bit type.
pub(super) fn operand<B: PackedOps>(
    packed: IntTensor<B>,
    scales: FloatTensor<B>,
    layout: PackedLayout,
) -> FloatTensor<B> {
    match mixed() {
        None => B::unpack(packed, scales, layout),
        Some(half) if layout.format == half.format() => {
            let stored = B::stored_halves(packed, scales, layout);
            if layout.transposed {
                B::float_swap_dims(stored, 0, 1)
            } else {
                stored
            }
        }
        Some(half) => cast::<B>(B::unpack(packed, scales, layout), half.dtype()),
    }
}

#[cfg(feature = "flex")]
impl PackedOps for burn::backend::Flex {
    fn unpack(
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        use burn::backend::ops::FloatTensorOps;
        use burn::tensor::TensorData;
        if packed.dtype() != DType::I32 || scales.dtype() != DType::F32 {
            return composed_unpack::<Self>(packed, scales, layout);
        }
        let (packed, scales) = (packed.to_contiguous(), scales.to_contiguous());
        let (packed, scales) = (packed.storage::<i32>(), scales.storage::<f32>());
        let stored = layout.stored();
        let count = stored.iter().product();
        let values = super::kernels::unpack(packed, scales, layout.format, count);
        let weight = FloatTensor::<Self>::from_data(TensorData::new(values, stored));
        if layout.transposed {
            Self::float_swap_dims(weight, 0, 1)
        } else {
            weight
        }
    }

    /// Unpacks a large output layer part by part, in the memory of one part.
    fn packed_linear(
        x: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        use super::contiguous::are_plain_f32;
        use super::gemm::Matrix;
        use super::packed_product::PackedMatrix;
        use super::product::ProductOps;
        use burn::backend::ops::{FloatTensorOps, ModuleOps};
        use burn::tensor::TensorData;
        if mixed().is_some() || !are_plain_f32(&[&x]) {
            let (dtype, w) = (x.dtype(), operand::<Self>(packed, scales, layout));
            return cast::<Self>(Self::apply_weight(x, w), dtype);
        }
        if layout.parts().len() == 1 {
            return Self::linear(x, Self::unpack(packed, scales, layout), None);
        }
        let mut shape = x.shape();
        let (rows, last) = (shape.num_elements() / layout.d_in, shape.num_dims() - 1);
        shape[last] = layout.d_out;
        let x = Self::float_reshape(x, Shape::new([rows, layout.d_in]));
        let (packed, scales) = (packed.to_contiguous(), scales.to_contiguous());
        let mut y = Vec::new();
        PackedMatrix::new(packed.storage::<i32>(), scales.storage::<f32>(), layout)
            .append_product(&mut y, Matrix::from_tensor(&x));
        FloatTensor::<Self>::from_data(TensorData::new(y, shape))
    }
}

impl<B: PackedOps, C: CheckpointStrategy> PackedOps for Autodiff<B, C> {
    fn unpack(
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        // The weight is frozen: it has no gradient.
        let weight = B::unpack(packed, scales.into_primitive(), layout);
        <Self as AutodiffBackend>::from_inner(weight)
    }

    fn packed_linear(
        x: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        let operation =
            Operation::<B, C, _, 1>::new([&x], |pass, grad, (packed, scales, layout)| {
                pass.register(0, || {
                    let (dtype, w) = (grad.dtype(), operand::<B>(packed, scales, layout));
                    cast::<B>(B::apply_weight(grad, B::float_swap_dims(w, 0, 1)), dtype)
                });
            });
        let scales = scales.into_primitive();
        let weight = (packed.clone(), scales.clone(), layout);
        let y = B::packed_linear(x.into_primitive(), packed, scales, layout);
        operation.finish(weight, y)
    }

    fn packed_project_from(
        x: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        let operation = Operation::<B, C, _, 2>::new(
            [&x, &bias],
            |pass, grad, (packed, scales, layout, bias_dtype)| {
                pass.register(1, || {
                    cast::<B>(B::linear_bias_backward(grad.clone()), bias_dtype)
                });
                pass.register(0, || {
                    let (dtype, w) = (grad.dtype(), operand::<B>(packed, scales, layout));
                    cast::<B>(B::multiply(grad, B::float_swap_dims(w, 0, 1)), dtype)
                });
            },
        );
        let bias_dtype = bias.dtype();
        let [x, bias, scales] = [x, bias, scales].map(|tensor| tensor.into_primitive());
        let state = (packed.clone(), scales.clone(), layout, bias_dtype);
        let y = B::packed_project_from(x, packed, scales, bias, layout);
        operation.finish(state, y)
    }

    fn packed_lora_linear(
        x: FloatTensor<Self>,
        adapter_x: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        layout: PackedLayout,
        scale: f64,
    ) -> FloatTensor<Self> {
        let inputs = [&x, &adapter_x, &a, &b];
        let mut operation = Operation::<B, C, _, 4>::new(
            inputs,
            |pass, grad, (saved, (packed, scales, layout), scale)| {
                let w = || operand::<B>(packed, scales, layout);
                lora_linear::backward(pass, grad, saved, w, scale);
            },
        );
        let saved = [&adapter_x, &a, &b].map(|input| operation.save(input));
        let [x, adapter_x, scales, a, b] =
            [x, adapter_x, scales, a, b].map(|tensor| tensor.into_primitive());
        let state = (saved, (packed.clone(), scales.clone(), layout), scale);
        let y = B::packed_lora_linear(x, adapter_x, packed, scales, a, b, layout, scale);
        operation.finish(state, y)
    }
}

/// Applies [`PackedOps::unpack`] to tensors.
///
/// # Panics
/// Panics on shapes that do not match, and on a backend whose feature of this crate is off.
pub(crate) fn unpack(packed: Tensor<1, Int>, scales: Tensor<1>, layout: PackedLayout) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as PackedOps>::unpack(
        packed.into_dispatch(),
        scales.into_dispatch(),
        layout,
    ))
}

/// Computes `x W`, or `x W + b`, with a packed weight.
///
/// # Panics
/// Panics in the cases of [`unpack`].
pub(crate) fn packed_linear<const D: usize>(
    x: Tensor<D>,
    packed: Tensor<1, Int>,
    scales: Tensor<1>,
    bias: Option<Tensor<1>>,
    layout: PackedLayout,
) -> Tensor<D> {
    let (packed, scales) = (packed.into_dispatch(), scales.into_dispatch());
    let Some(bias) = bias else {
        let x = x.into_dispatch();
        let y = <Dispatch as PackedOps>::packed_linear(x, packed, scales, layout);
        return Tensor::from_dispatch(y);
    };
    let mut shape: [usize; D] = x.dims();
    let rows = shape[..D - 1].iter().product();
    let y: Tensor<2> = Tensor::from_dispatch(<Dispatch as PackedOps>::packed_project_from(
        x.reshape([rows, layout.d_in]).into_dispatch(),
        packed,
        scales,
        bias.into_dispatch(),
        layout,
    ));
    shape[D - 1] = layout.d_out;
    y.reshape(shape)
}

/// Applies [`PackedOps::packed_lora_linear`] to tensors, with `x`, `adapter_x`, `A` and `B`.
///
/// # Panics
/// Panics in the cases of [`unpack`].
pub(crate) fn packed_lora_linear<const D: usize>(
    [x, adapter_x]: [Tensor<D>; 2],
    packed: Tensor<1, Int>,
    scales: Tensor<1>,
    [a, b]: [Tensor<2>; 2],
    layout: PackedLayout,
    scale: f64,
) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as PackedOps>::packed_lora_linear(
        x.into_dispatch(),
        adapter_x.into_dispatch(),
        packed.into_dispatch(),
        scales.into_dispatch(),
        a.into_dispatch(),
        b.into_dispatch(),
        layout,
        scale,
    ))
}
