//! Dequantization of packed weights, composed of operations that every backend has.

use super::packed_format::{BLOCK, INT8_OFFSET, NF4, PackedFormat, PackedLayout, WORD, half_bits};
use super::prelude::*;
use burn::tensor::{Shape, Slice, TensorData};
use std::ops::Range;

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
    scales: &FloatTensor<B>,
    layout: PackedLayout,
    outputs: &Range<usize>,
) -> (IntTensor<B>, FloatTensor<B>, PackedLayout) {
    if outputs.len() == layout.d_out {
        return (packed.clone(), scales.clone(), layout);
    }
    let [words, own] = layout.part(outputs);
    let packed = B::int_slice(packed.clone(), &[Slice::from(words)]);
    let scales = match layout.scales_per_row() {
        0 => scales.clone(),
        _ => B::float_slice(scales.clone(), &[Slice::from(own)]),
    };
    (packed, scales, layout.of_part(outputs))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::ops::PackedOps;
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

    /// A part of the outputs has their values and their scales.
    #[test]
    fn a_part_is_unpacked_to_its_columns() {
        for format in [PackedFormat::Nf4, PackedFormat::Int8, PackedFormat::Bf16] {
            let layout = PackedLayout {
                format,
                d_in: 128,
                d_out: 9,
                transposed: true,
            };
            let words = 128 * 9 * format.bits() / WORD;
            let packed =
                (0..words as u32).map(|i| (i.wrapping_mul(2_654_435_761) & 0xbfff_bfff) as i32);
            let scales = (0..18).map(|i| 0.1 + i as f32 * 0.37);
            let (packed, scales) = tensors(packed.collect(), scales.collect());
            let whole = composed_unpack::<Flex>(packed.clone(), scales.clone(), layout);
            let expected = Flex::float_slice(whole, &[Slice::from(0..128), Slice::from(4..7)]);
            let (packed, scales, part) = packed_part::<Flex>(&packed, &scales, layout, &(4..7));
            let found = composed_unpack::<Flex>(packed, scales, part);
            assert_eq!(found.layout().shape().as_slice(), [128, 3]);
            let [found, expected] = [found, expected].map(|all| all.to_contiguous());
            assert_eq!(
                found.storage::<f32>(),
                expected.storage::<f32>(),
                "{format}"
            );
        }
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "interprets tensor operations on all numbers of 16 bits"
    )]
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
