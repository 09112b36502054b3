//! Linear layer with a packed, frozen weight: QLoRA, Dettmers et al. 2023 (arXiv 2305.14314), equation (5), and floats of 16
//! bits.
//!
//! The weight is dequantized for each product, in the forward pass and again in the backward pass, and freed in
//! between. The backward pass keeps only the packed values, which the layer owns anyway.

use super::packed_format::half_bits;
pub(crate) use super::packed_format::{BLOCK, INT8_OFFSET, NF4, WORD};
pub use super::packed_format::{PackedFormat, PackedLayout};
use super::prelude::*;
use super::{LinearOps, LoraOps, lora_linear};
use burn::backend::AutodiffBackend;
use burn::tensor::{Int, Shape, Slice, Tensor, TensorData};
use std::ops::Range;

backend_operations! {
    /// Packed weights on a backend.
    ///
    /// Values are packed into 32-bit integers, the first in the lowest bits. With [`PackedFormat::Nf4`] and
    /// [`PackedFormat::Int8`], 64 values share a scale, and the values are padded to a full block; with
    /// [`PackedFormat::F16`] and [`PackedFormat::Bf16`] they are padded to a full integer, and the tensor of scales only
    /// tells the element type.
    pub trait PackedOps {
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

        /// Computes `x W` with the packed `W`.
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
            Self::linear(x, Self::unpack(packed, scales, layout), None)
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
            let bias = Self::float_reshape(bias, Shape::new([1, layout.d_out]));
            Self::float_add(Self::packed_linear(x, packed, scales, layout), bias)
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
            let w = Self::unpack(packed, scales, layout);
            lora_linear::composed::<Self>(x, adapter_x, w, a, b, scale)
        }
    }
}

/// Dequantizes by operations of every backend.
pub(super) fn composed_unpack<B: Backend>(
    packed: IntTensor<B>,
    scales: FloatTensor<B>,
    layout: PackedLayout,
) -> FloatTensor<B> {
    let values = if layout.format.is_half() {
        composed_halves::<B>(packed, &scales, layout.format)
    } else {
        composed_blocks::<B>(packed, scales, layout.format)
    };
    let stored = layout.stored();
    let count = stored.iter().product();
    let values = if count == values.shape()[0] {
        values
    } else {
        B::float_slice(values, &[Slice::from(0..count)])
    };
    let values = B::float_reshape(values, Shape::new(stored));
    if layout.transposed {
        B::float_swap_dims(values, 0, 1)
    } else {
        values
    }
}

/// Separates the integers of `bits` bits, `[words, values per word]`.
fn composed_codes<B: Backend>(packed: IntTensor<B>, bits: usize) -> IntTensor<B> {
    let words = packed.shape()[0];
    let packed = B::int_reshape(packed, Shape::new([words, 1]));
    let integer = |index: usize| {
        // A right shift of a negative integer fills with ones, which the mask removes.
        let shift = (index * bits) as i64;
        let shifted = B::bitwise_right_shift_scalar(packed.clone(), shift.into());
        B::bitwise_and_scalar(shifted, ((1i64 << bits) - 1).into())
    };
    B::int_cat((0..WORD / bits).map(integer).collect(), 1)
}

/// Dequantizes all blocks of NF4 or integers.
fn composed_blocks<B: Backend>(
    packed: IntTensor<B>,
    scales: FloatTensor<B>,
    format: PackedFormat,
) -> FloatTensor<B> {
    let blocks = scales.shape()[0];
    let (device, dtype) = (scales.device(), scales.dtype());
    let integers = composed_codes::<B>(packed, format.bits());
    let values = match format {
        PackedFormat::Nf4 => {
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
    B::float_reshape(values, Shape::new([blocks * BLOCK]))
}

/// Widens floats of 16 bits by arithmetic, since backends have no cast from the bits of an integer to a float:
/// `±2^(max(e, 1) − bias) · (fraction + [e > 0])`, each step of which is exact in f32.
fn composed_halves<B: Backend>(
    packed: IntTensor<B>,
    like: &FloatTensor<B>,
    format: PackedFormat,
) -> FloatTensor<B> {
    let (device, dtype) = (like.device(), like.dtype());
    let (fraction_bits, bias) = half_bits(format);
    let count = 2 * packed.shape()[0];
    let exponents = 1i64 << (15 - fraction_bits);
    // Signs and exponents select a power of two.
    let powers = (0..2 * exponents).map(|index| {
        let sign = if index < exponents { 1.0 } else { -1.0 };
        sign * 2f32.powi((index % exponents).max(1) as i32 - bias)
    });
    let powers: Vec<f32> = powers.collect();
    let rows = powers.len();
    let powers = B::float_from_data(TensorData::new(powers, [rows]), &device);
    let powers = B::float_cast(powers, dtype.into());

    let bits = composed_codes::<B>(packed, format.bits());
    let bits = B::int_reshape(bits, Shape::new([count]));
    let index = B::bitwise_right_shift_scalar(bits.clone(), (fraction_bits as i64).into());
    let fraction = B::bitwise_and_scalar(bits, ((1i64 << fraction_bits) - 1).into());
    let fraction = B::int_into_float(fraction, dtype.into());
    let fraction = B::float_mul_scalar(fraction, 2f64.powi(-(fraction_bits as i32)).into());
    let exponent = B::bitwise_and_scalar(index.clone(), (exponents - 1).into());
    let is_normal = B::int_into_float(B::int_clamp_max(exponent, 1.into()), dtype.into());
    let significand = B::float_add(fraction, is_normal);
    B::float_mul(significand, B::float_select(powers, 0, index))
}

/// Returns the part of a packed weight for some of its outputs.
pub(super) fn packed_part<B: Backend>(
    packed: &IntTensor<B>,
    layout: PackedLayout,
    outputs: &Range<usize>,
) -> (IntTensor<B>, PackedLayout) {
    if outputs.len() == layout.d_out {
        return (packed.clone(), layout);
    }
    let (words, layout) = layout.part(outputs);
    (B::int_slice(packed.clone(), &[Slice::from(words)]), layout)
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
        use burn::backend::ops::{FloatTensorOps, ModuleOps};
        if layout.parts().len() == 1 || !are_plain_f32(&[&x]) {
            return Self::linear(x, Self::unpack(packed, scales, layout), None);
        }
        let mut shape = x.shape();
        let (rows, last) = (shape.num_elements() / layout.d_in, shape.num_dims() - 1);
        shape[last] = layout.d_out;
        let x = Self::float_reshape(x, Shape::new([rows, layout.d_in]));
        let packed = packed.to_contiguous();
        let mut y = Vec::new();
        PackedMatrix::new(packed.storage::<i32>(), layout)
            .append_product(&mut y, Matrix::from_tensor(&x));
        FloatTensor::<Self>::from_data(TensorData::new(y, shape))
    }

    fn packed_project_from(
        x: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        Self::project_from(x, Self::unpack(packed, scales, layout), bias)
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
        let w = Self::unpack(packed, scales, layout);
        Self::lora_linear(x, adapter_x, w, a, b, scale)
    }
}

impl<B: Backend + PackedOps + LinearOps + LoraOps, C: CheckpointStrategy> PackedOps
    for Autodiff<B, C>
{
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
                    B::linear_x_backward(B::unpack(packed, scales, layout), grad)
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
        let operation =
            Operation::<B, C, _, 2>::new([&x, &bias], |pass, grad, (packed, scales, layout)| {
                pass.register(1, || B::linear_bias_backward(grad.clone()));
                pass.register(0, || {
                    let w = B::unpack(packed, scales, layout);
                    B::project(grad, B::float_swap_dims(w, 0, 1))
                });
            });
        let [x, bias, scales] = [x, bias, scales].map(|tensor| tensor.into_primitive());
        let weight = (packed.clone(), scales.clone(), layout);
        let y = B::packed_project_from(x, packed, scales, bias, layout);
        operation.finish(weight, y)
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
                let w = || B::unpack(packed, scales, layout);
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::backend::ops::{FloatTensorOps, IntTensorOps};
    use burn::tensor::{bf16, f16};

    /// Number formats and weight shapes, with and without an incomplete last block.
    const SIZES: [(PackedFormat, [usize; 2]); 6] = [
        (PackedFormat::Nf4, [40, 24]),
        (PackedFormat::Int8, [40, 24]),
        (PackedFormat::Nf4, [67, 33]),
        (PackedFormat::Int8, [5, 3]),
        (PackedFormat::F16, [67, 33]),
        (PackedFormat::Bf16, [40, 24]),
    ];

    fn tensors(packed: Vec<i32>, scales: Vec<f32>) -> (IntTensor<Flex>, FloatTensor<Flex>) {
        let device = Default::default();
        let (words, blocks) = (packed.len(), scales.len());
        (
            Flex::int_from_data(TensorData::new(packed, [words]), &device),
            Flex::float_from_data(TensorData::new(scales, [blocks]), &device),
        )
    }

    /// The other backends only have the composed default, which is checked here against the CPU loop.
    #[test]
    fn the_composition_and_the_loop_of_flex_give_the_same() {
        for ((format, [d_in, d_out]), transposed) in SIZES
            .into_iter()
            .flat_map(|size| [(size, true), (size, false)])
        {
            let layout = PackedLayout {
                format,
                d_in,
                d_out,
                transposed,
            };
            let blocks = (d_in * d_out).div_ceil(BLOCK);
            let words = blocks * BLOCK * format.bits() / WORD;
            // All bits occur, the highest too: integers of both signs. An exponent of 31 or 255 is that of NaN.
            let finite = if format.is_half() {
                0xbfff_bfffu32
            } else {
                u32::MAX
            };
            let packed = (0..words as u32).map(|i| (i.wrapping_mul(2_654_435_761) & finite) as i32);
            let scales = (0..blocks).map(|i| 0.1 + i as f32 * 0.37);
            let (packed, scales) = tensors(packed.collect(), scales.collect());
            let ours = <Flex as PackedOps>::unpack(packed.clone(), scales.clone(), layout);
            let composed = composed_unpack::<Flex>(packed, scales, layout);
            let (ours, composed) = (ours.to_contiguous(), composed.to_contiguous());
            assert_eq!(ours.storage::<f32>(), composed.storage::<f32>(), "{format}");
            assert_eq!(ours.layout().shape().as_slice(), [d_in, d_out]);
        }
    }

    #[test]
    fn all_halves_are_widened_exactly() {
        type Widen = fn(u16) -> f32;
        let formats: [(PackedFormat, Widen, u16); 2] = [
            (
                PackedFormat::F16,
                |bits| f16::from_bits(bits).to_f32(),
                0x7c00,
            ),
            (
                PackedFormat::Bf16,
                |bits| bf16::from_bits(bits).to_f32(),
                0x7f80,
            ),
        ];
        for (format, widen, infinite) in formats {
            let all = (0..=u16::MAX).filter(|bits| bits & infinite != infinite);
            let all: Vec<u16> = all.collect();
            let words = all.as_chunks::<2>().0.iter();
            let words = words.map(|&[low, high]| i32::from(low) | i32::from(high) << 16);
            let (packed, scales) = tensors(words.collect(), vec![1.0]);
            let layout = PackedLayout {
                format,
                d_in: 2,
                d_out: all.len() / 2,
                transposed: true,
            };
            let expected: Vec<u32> = all.iter().map(|&bits| widen(bits).to_bits()).collect();
            for found in [
                <Flex as PackedOps>::unpack(packed.clone(), scales.clone(), layout),
                composed_unpack::<Flex>(packed, scales, layout),
            ] {
                let found = Flex::float_swap_dims(found, 0, 1).to_contiguous();
                let found: Vec<u32> = found.storage::<f32>().iter().map(|x| x.to_bits()).collect();
                assert_eq!(found, expected, "{format}");
            }
        }
    }
}
