//! Packing of 16-bit floats, on the host.

use crate::ops::HalfFloat;
use burn::tensor::{Bytes, DType, TensorData, bf16, f16};

/// Values of a weight that is to be held in 16 bits.
pub enum HalfValues<'a> {
    /// Floats of 32 bits, which are rounded to nearest even.
    Floats(&'a [f32]),
    /// Floats of the 16-bit type itself, least significant byte first, as in safetensors files. They are used in place if they
    /// are aligned to 4 bytes.
    Bits(Bytes),
}

/// Packed 16-bit floats.
pub(super) struct HalfWords {
    /// Integers of 32 bits with two values each, the first in the lower half.
    pub words: TensorData,
    /// True if a value was rounded.
    pub rounded: bool,
}

/// Packs `count` values.
///
/// # Errors
/// The reason, as a message about the weight, if a value is not finite or would become infinite.
///
/// # Panics
/// If there are not `count` values.
pub(super) fn pack(
    values: HalfValues<'_>,
    half: HalfFloat,
    count: usize,
) -> Result<HalfWords, String> {
    match values {
        HalfValues::Floats(values) => {
            assert_eq!(values.len(), count, "values of a weight in 16 bits");
            round(values, half)
        }
        HalfValues::Bits(bytes) => {
            assert_eq!(bytes.len(), 2 * count, "bytes of a weight in 16 bits");
            let infinite = match half {
                HalfFloat::F16 => 0x7c00,
                HalfFloat::Bf16 => 0x7f80,
            };
            let bits = bytes.as_chunks::<2>().0.iter().copied();
            let mut bits = bits.map(u16::from_le_bytes);
            if bits.clone().any(|bits| bits & infinite == infinite) {
                return Err(NOT_FINITE.into());
            }
            let aligned = bytes.as_ptr().cast::<i32>().is_aligned() && count.is_multiple_of(2);
            let words = count.div_ceil(2);
            let words = if aligned && cfg!(target_endian = "little") {
                TensorData::from_bytes(bytes, [words], DType::I32)
            } else {
                let pair = |_| [bits.next(), bits.next()].map(Option::unwrap_or_default);
                let packed = (0..words).map(pair).map(word).collect::<Vec<i32>>();
                TensorData::new(packed, [words])
            };
            Ok(HalfWords {
                words,
                rounded: false,
            })
        }
    }
}

/// Message about a weight with values that are not finite.
pub(super) const NOT_FINITE: &str = "its weight has values that are not finite";

fn word([low, high]: [u16; 2]) -> i32 {
    i32::from_ne_bytes((u32::from(low) | u32::from(high) << 16).to_ne_bytes())
}

fn round(values: &[f32], half: HalfFloat) -> Result<HalfWords, String> {
    let narrow = |value: f32| match half {
        HalfFloat::F16 => {
            let half = f16::from_f32(value);
            (half.to_bits(), half.to_f32())
        }
        HalfFloat::Bf16 => {
            let half = bf16::from_f32(value);
            (half.to_bits(), half.to_f32())
        }
    };
    let mut rounded = false;
    let mut bits = |value: f32| {
        let (bits, kept) = narrow(value);
        rounded |= kept != value;
        if kept.is_finite() {
            Ok(bits)
        } else if value.is_finite() {
            let name = half.format();
            Err(format!(
                "its weight holds {value:e}, which is infinite as {name}; take a type with a larger range: bf16 or f32"
            ))
        } else {
            Err(NOT_FINITE.into())
        }
    };
    let (pairs, last) = values.as_chunks::<2>();
    let mut words = Vec::with_capacity(values.len().div_ceil(2));
    for &[low, high] in pairs {
        words.push(word([bits(low)?, bits(high)?]));
    }
    if let [last] = last {
        words.push(word([bits(*last)?, 0]));
    }
    let count = words.len();
    Ok(HalfWords {
        words: TensorData::new(words, [count]),
        rounded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(values: HalfValues<'_>, half: HalfFloat, count: usize) -> (Vec<i32>, bool) {
        let packed = pack(values, half, count).unwrap();
        (packed.words.try_to_vec().unwrap(), packed.rounded)
    }

    #[test]
    fn floats_are_rounded_to_nearest_even_and_the_first_lies_in_the_lower_half() {
        let floats = HalfValues::Floats(&[1.0, -2.0, 0.5]);
        let expected = vec![0xc000_3c00u32 as i32, 0x3800];
        assert_eq!(words(floats, HalfFloat::F16, 3), (expected, false));
        // 2⁻¹¹ and 2⁻⁸ are half a unit in the last place of 1: a tie goes to the even neighbour.
        for (half, unit, one) in [
            (HalfFloat::F16, 2f32.powi(-10), 0x3c00),
            (HalfFloat::Bf16, 2f32.powi(-7), 0x3f80),
        ] {
            let values = [1.0 + 0.5 * unit, 1.0 + 1.5 * unit];
            let expected = vec![(one + 2) << 16 | one];
            assert_eq!(
                words(HalfValues::Floats(&values), half, 2),
                (expected, true)
            );
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let error = |values: &[f32], half| {
            let packed = pack(HalfValues::Floats(values), half, values.len());
            packed.err().unwrap_or_default()
        };
        let text = error(&[1.0, 70_000.0], HalfFloat::F16);
        assert!(text.contains("7e4") && text.contains("f16"), "{text}");
        assert_eq!(error(&[1.0, 70_000.0], HalfFloat::Bf16), "");
        assert!(error(&[f32::MAX], HalfFloat::Bf16).contains("infinite"));
        for half in HalfFloat::ALL {
            assert_eq!(error(&[f32::NAN], half), NOT_FINITE);
            assert_eq!(error(&[1.0, f32::INFINITY], half), NOT_FINITE);
            assert_eq!(error(&[65_504.0, -65_504.0, 1e-30], half), "");
        }
    }

    #[test]
    fn bits_are_taken_as_they_are_wherever_they_lie() {
        let bits: [u16; 5] = [0x3c00, 0xc000, 0x0001, 0x8000, 0x7bff];
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let expected = vec![0xc000_3c00u32 as i32, 0x8000_0001u32 as i32, 0x7bff];
        let all = Bytes::from_bytes_vec(bytes.clone());
        let found = words(HalfValues::Bits(all), HalfFloat::F16, 5);
        assert_eq!(found, (expected.clone(), false));
        let even = Bytes::from_bytes_vec(bytes[..8].to_vec());
        let found = words(HalfValues::Bits(even), HalfFloat::F16, 4);
        assert_eq!(found, (expected[..2].to_vec(), false));
        let infinite = Bytes::from_bytes_vec(vec![0x80, 0xff]);
        assert!(pack(HalfValues::Bits(infinite), HalfFloat::Bf16, 1).is_err());
    }
}
