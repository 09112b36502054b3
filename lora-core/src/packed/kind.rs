//! How the values of a frozen weight are kept.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How the values of a frozen weight are kept, 64 to a block with a scale in f32.
///
/// The blocks go along the weight as PyTorch has it, `[d_out, d_in]`, so that values are those of the same
/// checkpoint in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// 4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314, section 3): of 16 values, the one nearest to
    /// the number over the largest magnitude of its block. Codes and values are those of bitsandbytes with a block
    /// size of 64; scales are not quantised again. 4.5 bits a value.
    Nf4,
    /// Whole numbers of 8 bits, from −127 to 127 times a scale that takes the largest magnitude of the block to 127. 8.5
    /// bits a value.
    ///
    /// This is not what bitsandbytes calls 8 bits, which has one scale for a whole row, keeps columns with outliers in
    /// f16 and rounds activations too. With a scale to every 64 values an outlier is the matter of
    /// its block, so that none of this is needed.
    Int8,
}

impl Quantization {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Nf4, Self::Int8];

    /// Bits of a code.
    pub fn bits(self) -> usize {
        match self {
            Self::Nf4 => 4,
            Self::Int8 => 8,
        }
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nf4 => "nf4",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Quantization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let same = |q: &Self| q.to_string() == text.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(same);
        found.ok_or_else(|| format!("`{text}` is no quantization; expected nf4 or int8"))
    }
}
