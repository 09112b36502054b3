//! Linear layer with a packed, frozen weight: QLoRA, Dettmers et al. 2023 (arXiv 2305.14314), equation (5).
//!
//! The weight is dequantized for each product, in the forward pass and again in the backward pass, and freed in
//! between. The backward pass keeps only the packed values, which the layer owns anyway.

pub use super::packed_format::PackedLayout;
pub(crate) use super::packed_format::{BLOCK, INT8_OFFSET, NF4, WORD};
use super::prelude::*;
use super::product::ProductOps;
use burn::backend::AutodiffBackend;
use burn::tensor::{Int, Shape, Slice, Tensor, TensorData};

backend_operations! {
    /// Packed weights on a backend.
    ///
    /// Values are packed into 32-bit integers, the first in the lowest bits, and 64 values share a scale. With
    /// `bits` = 4 they are indices into the NF4 codebook, with `bits` = 8 signed integers plus 128. Their order is that of
    /// PyTorch's weight, `[d_out, d_in]`, padded to a full block.
    pub trait PackedOps: ProductOps {
        /// Dequantizes the weight to `[d_in, d_out]`.
        ///
        /// # Shapes
        /// - `packed`: `[blocks · 2 · bits]`, `scales`: `[blocks]`
        #[fusion(default)]
        fn unpack(
            packed: IntTensor<Self>,
            scales: FloatTensor<Self>,
            layout: PackedLayout,
        ) -> FloatTensor<Self> {
            composed_unpack::<Self>(packed, scales, layout)
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
            cast::<Self>(Self::apply_weight(x, Self::unpack(packed, scales, layout)), dtype)
        }
    }
}

/// Dequantizes by operations of every backend.
fn composed_unpack<B: Backend>(
    packed: IntTensor<B>,
    scales: FloatTensor<B>,
    layout: PackedLayout,
) -> FloatTensor<B> {
    let PackedLayout { bits, d_in, d_out } = layout;
    let words = packed.shape()[0];
    let blocks = scales.shape()[0];
    let (device, dtype) = (scales.device(), scales.dtype());
    let packed = B::int_reshape(packed, Shape::new([words, 1]));
    let integer = |index: usize| {
        // A right shift of a negative integer fills with ones, which the mask removes.
        let shift = (index * bits) as i64;
        let shifted = B::bitwise_right_shift_scalar(packed.clone(), shift.into());
        B::bitwise_and_scalar(shifted, ((1i64 << bits) - 1).into())
    };
    let integers = B::int_cat((0..WORD / bits).map(integer).collect(), 1); // [words, values per word]
    let values = match bits {
        4 => {
            let table = B::float_from_data(TensorData::new(NF4.to_vec(), [16]), &device);
            let table = B::float_cast(table, dtype.into());
            B::float_select(
                table,
                0,
                B::int_reshape(integers, Shape::new([blocks * BLOCK])),
            )
        }
        _ => B::float_sub_scalar(
            B::int_into_float(integers, dtype.into()),
            i64::from(INT8_OFFSET).into(),
        ),
    };
    let values = B::float_reshape(values, Shape::new([blocks, BLOCK]));
    let values = B::float_mul(values, B::float_reshape(scales, Shape::new([blocks, 1])));
    let values = B::float_reshape(values, Shape::new([blocks * BLOCK]));
    let count = d_in * d_out;
    let values = if count == blocks * BLOCK {
        values
    } else {
        B::float_slice(values, &[Slice::from(0..count)])
    };
    B::float_swap_dims(B::float_reshape(values, Shape::new([d_out, d_in])), 0, 1)
}

#[cfg(feature = "flex")]
impl PackedOps for burn::backend::Flex {
    fn unpack(
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        use burn::backend::ops::FloatTensorOps;
        use burn::tensor::DType;
        if packed.dtype() != DType::I32 || scales.dtype() != DType::F32 {
            return composed_unpack::<Self>(packed, scales, layout);
        }
        let (packed, scales) = (packed.to_contiguous(), scales.to_contiguous());
        let (packed, scales) = (packed.storage::<i32>(), scales.storage::<f32>());
        let PackedLayout { bits, d_in, d_out } = layout;
        let values = super::kernels::unpack(packed, scales, bits, d_in * d_out);
        let weight = FloatTensor::<Self>::from_data(TensorData::new(values, [d_out, d_in]));
        Self::float_swap_dims(weight, 0, 1)
    }
}

impl<B: Backend + PackedOps, C: CheckpointStrategy> PackedOps for Autodiff<B, C> {
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
                    let (dtype, w) = (grad.dtype(), B::unpack(packed, scales, layout));
                    cast::<B>(B::apply_weight(grad, B::float_swap_dims(w, 0, 1)), dtype)
                });
            });
        let scales = scales.into_primitive();
        let weight = (packed.clone(), scales.clone(), layout);
        let y = B::packed_linear(x.into_primitive(), packed, scales, layout);
        operation.finish(weight, y)
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

/// Applies [`PackedOps::packed_linear`] to tensors.
///
/// # Panics
/// Panics in the cases of [`unpack`].
pub(crate) fn packed_linear<const D: usize>(
    x: Tensor<D>,
    packed: Tensor<1, Int>,
    scales: Tensor<1>,
    layout: PackedLayout,
) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as PackedOps>::packed_linear(
        x.into_dispatch(),
        packed.into_dispatch(),
        scales.into_dispatch(),
        layout,
    ))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::backend::Flex;

    /// Bits and weight shapes, with and without an incomplete last block.
    const SIZES: [(usize, [usize; 2]); 4] =
        [(4, [40, 24]), (8, [40, 24]), (4, [67, 33]), (8, [5, 3])];

    /// The other backends only have the composed default, which is checked here against the CPU loop.
    #[test]
    fn the_composition_and_the_loop_of_flex_give_the_same() {
        for (bits, [d_in, d_out]) in SIZES {
            let layout = PackedLayout { bits, d_in, d_out };
            let blocks = (d_in * d_out).div_ceil(BLOCK);
            let words = blocks * BLOCK * bits / WORD;
            // All bits occur, the highest too: integers of both signs.
            let packed = (0..words as u32).map(|i| i.wrapping_mul(2_654_435_761) as i32);
            let scales = (0..blocks).map(|i| 0.1 + i as f32 * 0.37);
            let device = Default::default();
            let packed = TensorData::new(packed.collect::<Vec<i32>>(), [words]);
            let packed =
                <Flex as burn::backend::ops::IntTensorOps<Flex>>::int_from_data(packed, &device);
            let scales = TensorData::new(scales.collect::<Vec<f32>>(), [blocks]);
            let scales = <Flex as burn::backend::ops::FloatTensorOps<Flex>>::float_from_data(
                scales, &device,
            );
            let ours = <Flex as PackedOps>::unpack(packed.clone(), scales.clone(), layout);
            let composed = composed_unpack::<Flex>(packed, scales, layout);
            let (ours, composed) = (ours.to_contiguous(), composed.to_contiguous());
            assert_eq!(
                ours.storage::<f32>(),
                composed.storage::<f32>(),
                "{bits} bits"
            );
            assert_eq!(ours.layout().shape().as_slice(), [d_in, d_out]);
        }
    }
}
