//! Float types of 16 bits.

use super::packed_format::PackedFormat;
use burn::tensor::DType;
use std::fmt;

/// Float type of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HalfFloat {
    /// Half precision: 11 significant bits, values up to 65504.
    F16,
    /// Upper half of an f32: its range, with 8 significant bits.
    Bf16,
}

impl HalfFloat {
    /// Both types.
    pub const ALL: [Self; 2] = [Self::F16, Self::Bf16];

    /// Returns the number format of packed values.
    pub fn format(self) -> PackedFormat {
        match self {
            Self::F16 => PackedFormat::F16,
            Self::Bf16 => PackedFormat::Bf16,
        }
    }

    /// Returns the element type of tensors.
    pub fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Returns the largest relative error of rounding a number to this type: 2⁻¹¹ for f16, 2⁻⁸ for bf16. In f16, numbers below
    /// 6.1e-5 have a larger one.
    pub fn rounding(self) -> f64 {
        2f64.powi(match self {
            Self::F16 => -11,
            Self::Bf16 => -8,
        })
    }
}

impl fmt::Display for HalfFloat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.format().fmt(f)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor};

    #[test]
    fn rounding_is_half_a_unit_in_the_last_place() {
        for half in HalfFloat::ALL {
            let next =
                Tensor::<1>::from_floats([1.0 + 1.01 * half.rounding() as f32], &Device::flex());
            let rounded = next
                .cast(half.dtype())
                .cast(DType::F32)
                .into_scalar::<f32>();
            assert_eq!(f64::from(rounded), 1.0 + 2.0 * half.rounding());
        }
    }
}
