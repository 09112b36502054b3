//! Format of packed weights: integers of 32 bits, which hold 2, 4 or 8 values each.

use burn::tensor::DType;
use std::fmt;
use std::ops::Range;

/// Number format of packed values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PackedFormat {
    /// Indices of 4 bits into the NF4 codebook, times a scale for every 64 values.
    Nf4,
    /// Signed integers of 8 bits plus 128, times a scale for every 64 values.
    Int8,
    /// Half precision: 11 significant bits, values up to 65504.
    F16,
    /// Upper half of an f32: its range, with 8 significant bits.
    Bf16,
}

impl PackedFormat {
    /// Returns the bits of a packed value.
    pub fn bits(self) -> usize {
        match self {
            Self::Nf4 => 4,
            Self::Int8 => 8,
            Self::F16 | Self::Bf16 => 16,
        }
    }

    /// Returns true for floats of 16 bits, which have no scales.
    pub fn is_half(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16)
    }
}

impl fmt::Display for PackedFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nf4 => "nf4",
            Self::Int8 => "int8",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// Number format and shape of a packed weight.
#[derive(Clone, Copy, Debug)]
pub struct PackedLayout {
    /// Number format.
    pub format: PackedFormat,
    /// Size of the input features.
    pub d_in: usize,
    /// Size of the output features.
    pub d_out: usize,
    /// True if the values are in the order of the transpose, `[d_out, d_in]`, as PyTorch's linear layers have them.
    pub transposed: bool,
}

impl PackedLayout {
    /// Returns the layout of the transposed weight with the same values.
    pub(crate) fn transpose(self) -> Self {
        Self {
            d_in: self.d_out,
            d_out: self.d_in,
            transposed: !self.transposed,
            ..self
        }
    }

    /// Returns the layout of the values in their order, as a matrix of the [`stored`](Self::stored) shape.
    pub(crate) fn in_order(self) -> Self {
        let [d_in, d_out] = self.stored();
        Self {
            d_in,
            d_out,
            transposed: false,
            ..self
        }
    }

    /// Returns the element type of packed floats of 16 bits.
    ///
    /// # Panics
    /// Panics on a format with scales.
    pub(crate) fn half_dtype(self) -> DType {
        match self.format {
            PackedFormat::F16 => DType::F16,
            PackedFormat::Bf16 => DType::BF16,
            format => panic!("{format} has scales"),
        }
    }

    /// Returns the shape in the order of the values.
    pub(crate) fn stored(&self) -> [usize; 2] {
        if self.transposed {
            [self.d_out, self.d_in]
        } else {
            [self.d_in, self.d_out]
        }
    }

    /// Returns the integers of one row of the stored shape, if no two rows share an integer or a scale.
    pub(crate) fn words_per_row(&self) -> Option<usize> {
        let [_, columns] = self.stored();
        let unit = if self.format.is_half() { 2 } else { BLOCK };
        (columns.is_multiple_of(unit)).then(|| columns * self.format.bits() / WORD)
    }

    /// Returns the scales of one row of the stored shape; 0 for floats of 16 bits.
    pub(crate) fn scales_per_row(&self) -> usize {
        let [_, columns] = self.stored();
        if self.format.is_half() {
            0
        } else {
            columns / BLOCK
        }
    }

    /// Returns ranges of output features that are unpacked one after another, so that a large output layer is never in
    /// memory as a whole in f32. It is one range for all other weights.
    pub(crate) fn parts(&self) -> Vec<Range<usize>> {
        let most = (MAX_PART_BYTES / size_of::<f32>() / self.d_in.max(1)).max(1);
        let count = self.d_out.div_ceil(most).max(1);
        if !self.transposed || self.words_per_row().is_none() || count == 1 {
            // One range, not the numbers in it.
            return std::iter::once(0..self.d_out).collect();
        }
        let size = self.d_out.div_ceil(count);
        let starts = (0..self.d_out).step_by(size);
        starts
            .map(|start| start..self.d_out.min(start + size))
            .collect()
    }

    /// Returns the ranges of integers and of scales that hold a range of output features, and its layout. The range is one of
    /// [`parts`](Self::parts). Floats of 16 bits have no scales, but a tensor in their place, which stays.
    pub(crate) fn part(&self, outputs: &Range<usize>) -> [Range<usize>; 2] {
        let all = 0..usize::MAX;
        match (
            self.words_per_row().filter(|_| self.transposed),
            self.scales_per_row(),
        ) {
            (Some(words), 0) => [outputs.start * words..outputs.end * words, all],
            (Some(words), scales) => [words, scales].map(|n| outputs.start * n..outputs.end * n),
            (None, _) => [all.clone(), all],
        }
    }

    /// Returns the layout of a range of output features.
    pub(crate) fn of_part(&self, outputs: &Range<usize>) -> Self {
        match self.words_per_row().filter(|_| self.transposed) {
            Some(_) => Self {
                d_out: outputs.len(),
                ..*self
            },
            None => *self,
        }
    }
}

/// Largest part of a weight that is unpacked at a time, in bytes of f32.
const MAX_PART_BYTES: usize = 16 << 20;

/// Number of values that share a scale.
pub(crate) const BLOCK: usize = 64;

/// Bits of one packed integer.
pub(crate) const WORD: usize = 32;

/// Codebook of NF4: quantiles of the standard normal distribution, scaled to a largest magnitude of 1, with an
/// exact zero (Dettmers et al. 2023, section 3 and appendix E).
pub(crate) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Offset from a signed 8-bit integer to its packed, unsigned form.
pub(crate) const INT8_OFFSET: i32 = 128;

/// Bits of the fraction of a 16-bit float, and the bias of its exponent.
pub(crate) fn half_bits(format: PackedFormat) -> (usize, i32) {
    match format {
        PackedFormat::F16 => (10, 15),
        _ => (7, 127),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_output_layer_is_divided_and_others_are_not() {
        let layout = |format, d_in, d_out, transposed| PackedLayout {
            format,
            d_in,
            d_out,
            transposed,
        };
        let head = layout(PackedFormat::Bf16, 768, 50257, true);
        let parts = head.parts();
        assert_eq!(parts.len(), 10);
        assert_eq!((parts[0].clone(), parts[9].end), (0..5026, 50257));
        assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        let [words, _] = head.part(&parts[1]);
        assert_eq!(words, 5026 * 384..2 * 5026 * 384);
        assert_eq!(head.of_part(&parts[1]).d_out, 5026);
        let int8 = layout(PackedFormat::Int8, 768, 50257, true);
        let ranges = [5026 * 192..2 * 5026 * 192, 5026 * 12..2 * 5026 * 12];
        assert_eq!(int8.part(&parts[1]), ranges);
        for whole in [
            // Rows share a block of values with one scale.
            layout(PackedFormat::Nf4, 800, 50257, true),
            layout(PackedFormat::F16, 769, 50257, true),
            layout(PackedFormat::F16, 768, 50257, false),
            layout(PackedFormat::F16, 768, 3072, true),
        ] {
            assert_eq!(whole.parts().len(), 1, "{whole:?}");
        }
    }
}
