//! Element types of exported checkpoints.

use crate::error::ModelError;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::fmt;

/// Element type of an exported checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExportDType {
    /// 32-bit float: the computed values, exactly.
    #[default]
    F32,
    /// Half precision: 11 significant bits, values up to 65504.
    F16,
    /// Upper half of an `F32`: its range, with 8 significant bits.
    BF16,
}

impl ExportDType {
    /// Returns the size of one element in bytes.
    pub fn size(self) -> usize {
        safetensors::Dtype::from(self).bitsize() / 8
    }

    /// Returns the name in the `config.json` of `transformers` (`torch_dtype` or `dtype`).
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }

    /// Appends `values`, rounded to nearest, as little-endian bytes.
    ///
    /// # Errors
    /// [`ModelError::TensorOverflow`] if a finite value would become infinite; the message names the tensor `name`.
    pub(crate) fn encode(
        self,
        name: &str,
        values: &[f32],
        bytes: &mut Vec<u8>,
    ) -> Result<(), ModelError> {
        match self {
            Self::F32 => {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                Ok(())
            }
            Self::F16 => self.encode_half(name, values, bytes, f16::ZERO, f16::to_le_bytes),
            Self::BF16 => self.encode_half(name, values, bytes, bf16::ZERO, bf16::to_le_bytes),
        }
    }

    fn encode_half<H: Copy>(
        self,
        name: &str,
        values: &[f32],
        bytes: &mut Vec<u8>,
        zero: H,
        to_bytes: fn(H) -> [u8; 2],
    ) -> Result<(), ModelError>
    where
        [H]: HalfFloatSliceExt,
        f32: From<H>,
    {
        let mut halves = vec![zero; values.len()];
        halves.convert_from_f32_slice(values);
        bytes.extend(halves.iter().flat_map(|&half| to_bytes(half)));
        let mut pairs = values.iter().zip(&halves);
        match pairs.find(|(value, half)| value.is_finite() && f32::from(**half).is_infinite()) {
            Some((&value, _)) => Err(ModelError::TensorOverflow {
                name: name.to_string(),
                value,
                dtype: self.to_string(),
            }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ExportDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<ExportDType> for safetensors::Dtype {
    fn from(dtype: ExportDType) -> Self {
        match dtype {
            ExportDType::F32 => Self::F32,
            ExportDType::F16 => Self::F16,
            ExportDType::BF16 => Self::BF16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(dtype: ExportDType, values: &[f32]) -> Result<Vec<u8>, ModelError> {
        let mut bytes = Vec::new();
        dtype.encode("w", values, &mut bytes).map(|()| bytes)
    }

    #[test]
    fn values_are_rounded_to_nearest_even() {
        // 1 + 2^-11 lies midway between two halves, and the even one is 1.
        let values = [1.0, 1.0 + 2f32.powi(-11), -0.5];
        assert_eq!(
            encode(ExportDType::F16, &values).unwrap(),
            [0, 0x3c, 0, 0x3c, 0, 0xb8]
        );
        let values = [1.0, 1.0 + 2f32.powi(-8), -0.5];
        assert_eq!(
            encode(ExportDType::BF16, &values).unwrap(),
            [0x80, 0x3f, 0x80, 0x3f, 0, 0xbf]
        );
        assert_eq!(
            encode(ExportDType::F32, &[1.5]).unwrap(),
            1.5f32.to_le_bytes()
        );
    }

    #[test]
    fn overflow_of_a_finite_value_is_an_error_and_infinity_is_kept() {
        assert!(encode(ExportDType::F16, &[65504.0, f32::INFINITY, f32::NAN]).is_ok());
        match encode(ExportDType::F16, &[1.0, -70000.0]) {
            Err(ModelError::TensorOverflow { name, value, .. }) => {
                assert_eq!((name.as_str(), value), ("w", -70000.0));
            }
            other => panic!("{other:?}"),
        }
        assert!(encode(ExportDType::BF16, &[70000.0]).is_ok());
        assert!(encode(ExportDType::BF16, &[f32::MAX]).is_err());
    }
}
