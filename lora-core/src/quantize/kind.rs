//! Number formats of quantized weights: [`Quantization`].

use crate::ops::packed::PackedFormat;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Number format of a quantized weight, in blocks of 64 values with a scale in f32.
///
/// Blocks are cut from the weight as PyTorch has it, `[d_out, d_in]`, so that the values equal those of the same
/// checkpoint in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// 4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314, section 3): the nearest of 16 values, after division
    /// by the largest magnitude of the block. Packed values are those of bitsandbytes with a block
    /// size of 64, without double quantization. 4.5 bits a value.
    Nf4,
    /// 8-bit integers from −127 to 127, times a scale that maps the largest magnitude of the block to 127. 8.5
    /// bits a value.
    ///
    /// This is not the 8-bit format of bitsandbytes (LLM.int8), which has one scale for a row, keeps columns with outliers
    /// in f16 and rounds activations too. With a scale for every 64 values, an outlier affects its block
    /// only.
    Int8,
}

impl Quantization {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::Nf4, Self::Int8];

    /// Returns the number format of packed values.
    pub fn format(self) -> PackedFormat {
        match self {
            Self::Nf4 => PackedFormat::Nf4,
            Self::Int8 => PackedFormat::Int8,
        }
    }

    /// Returns the bits of a packed value.
    pub fn bits(self) -> usize {
        self.format().bits()
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.format().fmt(f)
    }
}

impl FromStr for Quantization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let same = |q: &Self| q.to_string() == text.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(same);
        found.ok_or_else(|| format!("`{text}` is not a quantization; expected nf4 or int8"))
    }
}
