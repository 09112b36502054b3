//! Element types of tensors.

use crate::ModelError;
use crate::checkpoint::ExportDType;
use half::{bf16, f16};
use std::fmt;

/// Number of values that share a scale in [`ElementType::Q8_0`].
const BLOCK: usize = 32;
/// Size of such a block in bytes: the scale in 16 bits, and a byte for each value.
const BLOCK_BYTES: usize = 2 + BLOCK;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// Floats.
    Float(ExportDType),
    /// Integers of 8 bits: 32 values in a row share a scale, the largest of them divided by 127, in 16 bits.
    Q8_0,
}

impl Default for ElementType {
    fn default() -> Self {
        Self::Float(ExportDType::F32)
    }
}

impl From<ExportDType> for ElementType {
    fn from(dtype: ExportDType) -> Self {
        Self::Float(dtype)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(dtype) => dtype.fmt(f),
            Self::Q8_0 => f.write_str("Q8_0"),
        }
    }
}

impl ElementType {
    /// Returns the number of the type in a file.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Float(ExportDType::F32) => 0,
            Self::Float(ExportDType::F16) => 1,
            Self::Q8_0 => 8,
            Self::Float(ExportDType::BF16) => 30,
        }
    }

    /// Returns the type of a number in a file.
    pub(super) fn of_code(code: u32) -> Option<Self> {
        let floats = [ExportDType::F32, ExportDType::F16, ExportDType::BF16].map(Self::Float);
        let mut all = floats.into_iter().chain([Self::Q8_0]);
        all.find(|dtype| dtype.code() == code)
    }

    /// Returns the number that llama.cpp gives to a file whose matrices have this type (`LlamaFileType`).
    pub(super) fn file_type(self) -> u32 {
        match self {
            Self::Float(ExportDType::F32) => 0,
            Self::Float(ExportDType::F16) => 1,
            Self::Q8_0 => 7,
            Self::Float(ExportDType::BF16) => 32,
        }
    }

    /// Returns the type for a tensor of this shape in a model of matrices of this type: vectors are f32, and rows that cannot be
    /// divided into blocks are f16, as llama.cpp's converter has it.
    pub(super) fn of_shape(self, shape: &[usize]) -> Self {
        match (self, shape) {
            (_, [_] | []) => Self::Float(ExportDType::F32),
            (Self::Q8_0, [.., row]) if !row.is_multiple_of(BLOCK) => Self::Float(ExportDType::F16),
            _ => self,
        }
    }

    /// Returns the size of a number of values in bytes; `None` if they cannot be divided into blocks.
    pub(super) fn bytes(self, values: usize) -> Option<usize> {
        match self {
            Self::Float(dtype) => values.checked_mul(dtype.size()),
            Self::Q8_0 => {
                let blocks = values.is_multiple_of(BLOCK).then_some(values / BLOCK)?;
                blocks.checked_mul(BLOCK_BYTES)
            }
        }
    }

    /// Appends values as bytes.
    ///
    /// # Errors
    /// [`ModelError::TensorOverflow`] if a value exceeds the type; the message names the tensor `name`.
    pub(super) fn encode(
        self,
        name: &str,
        values: &[f32],
        bytes: &mut Vec<u8>,
    ) -> Result<(), ModelError> {
        match self {
            Self::Float(dtype) => dtype.encode(name, values, bytes),
            Self::Q8_0 => {
                for block in values.chunks_exact(BLOCK) {
                    encode_block(name, block, bytes)?;
                }
                Ok(())
            }
        }
    }

    /// Returns the values of bytes of the size that [`bytes`](Self::bytes) returns.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = |bytes: &[u8], value: fn([u8; 2]) -> f32| -> Vec<f32> {
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|&pair| value(pair))
                .collect()
        };
        match self {
            Self::Float(ExportDType::F32) => {
                let all = bytes.as_chunks().0.iter();
                all.map(|&value| f32::from_le_bytes(value)).collect()
            }
            Self::Float(ExportDType::F16) => pairs(bytes, |pair| f16::from_le_bytes(pair).into()),
            Self::Float(ExportDType::BF16) => pairs(bytes, |pair| bf16::from_le_bytes(pair).into()),
            Self::Q8_0 => {
                let blocks = bytes.as_chunks::<BLOCK_BYTES>().0.iter();
                let values = blocks.flat_map(|&[low, high, ref values @ ..]| {
                    let scale = f32::from(f16::from_le_bytes([low, high]));
                    values.map(|value| f32::from(value.cast_signed()) * scale)
                });
                values.collect()
            }
        }
    }
}

/// Appends a block as `quantize_row_q8_0_ref` of ggml does: values are rounded to the nearest, halves away from zero.
fn encode_block(name: &str, block: &[f32], bytes: &mut Vec<u8>) -> Result<(), ModelError> {
    let largest = block
        .iter()
        .fold(0.0f32, |most, value| most.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    ExportDType::F16.encode(name, &[scale], bytes)?;
    bytes.extend(
        block
            .iter()
            .map(|value| ((value * inverse).round() as i8).cast_unsigned()),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::tensors::Tensors;

    #[test]
    fn blocks_are_those_of_llama_cpp_s_package() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/gguf/q8_0.safetensors"
        );
        let (values, _) = Tensors::open(path).floats("values");
        let file = std::fs::read(path).unwrap();
        let expected = safetensors::SafeTensors::deserialize(&file).unwrap();
        let expected = expected.tensor("bytes").unwrap();
        let mut found = Vec::new();
        ElementType::Q8_0.encode("w", &values, &mut found).unwrap();
        assert_eq!(found, expected.data());
        assert_eq!(ElementType::Q8_0.bytes(values.len()), Some(found.len()));
        let again = ElementType::Q8_0.decode(&found);
        for (again, values) in again.chunks(BLOCK).zip(values.chunks(BLOCK)) {
            let largest = values
                .iter()
                .fold(0.0f32, |most, value| most.max(value.abs()));
            // A small scale is rounded to a multiple of 2⁻²⁴.
            let most = largest / 250.0 + 127.0 * 2f32.powi(-25);
            for (again, value) in again.iter().zip(values) {
                assert!((again - value).abs() <= most, "{again} is not {value}");
            }
        }
    }
}
