//! Tensors in the memory of the host, and the conversion of stored bytes to `f32`.

use super::{DType, is_float};
use crate::error::ModelError;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::borrow::Cow;
use std::path::PathBuf;

/// Number of elements converted at a time: their 16-bit form fits in the first-level cache.
const BLOCK: usize = 4096;

/// A tensor read from a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Extents, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Elements in row-major order, as many as the product of `shape`.
    pub values: Vec<f32>,
}

impl HostTensor {
    /// Converts the stored elements of a tensor, once and into their final place.
    ///
    /// The header was already compared with the file; the number of elements is checked here again before anything is
    /// allocated.
    ///
    /// # Errors
    /// [`ModelError::TensorDtype`] if the elements are not floats, [`ModelError::TensorShape`] if `bytes` does not
    /// hold as many elements as `shape` says.
    pub(super) fn from_bytes(
        name: &str,
        dtype: DType,
        shape: Vec<usize>,
        bytes: &[u8],
        order: ByteOrder,
    ) -> Result<Self, ModelError> {
        if !is_float(dtype) {
            return Err(not_float(name, dtype));
        }
        let size = dtype.bitsize() / 8;
        let elements = bytes.len() / size;
        if checked_product(&shape) != Some(elements) || !bytes.len().is_multiple_of(size) {
            return Err(ModelError::shape(name, &shape, &[elements]));
        }
        let mut bytes = Cow::Borrowed(bytes);
        if order == ByteOrder::Little && cfg!(target_endian = "big") {
            let stored = bytes.to_mut().chunks_exact_mut(size);
            stored.for_each(<[u8]>::reverse);
        }
        let values = match dtype {
            DType::F64 => f64_values(&bytes),
            DType::F32 => bytemuck::pod_collect_to_vec(&bytes[..]),
            DType::F16 => half_values(&bytes, f16::from_bits),
            _ => half_values(&bytes, bf16::from_bits),
        };
        Ok(Self { shape, values })
    }
}

/// Byte order of stored elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    /// Least significant byte first, as in safetensors files.
    Little,
    /// Order of this machine, as `pytorch_reader` returns bytes.
    Native,
}

/// Builds the error for a tensor of integers or of an exotic type that was requested as `f32`.
pub(super) fn not_float(name: &str, dtype: DType) -> ModelError {
    ModelError::TensorDtype {
        path: PathBuf::new(),
        name: name.to_string(),
        expected: "F32, F16, BF16 or F64".to_string(),
        found: dtype.to_string(),
    }
}

/// Returns the number of elements of a shape; `None` past the machine word.
pub(super) fn checked_product(shape: &[usize]) -> Option<usize> {
    let mut extents = shape.iter();
    extents.try_fold(1usize, |n, &extent| n.checked_mul(extent))
}

/// Converts 64-bit floats. Values past the range of `f32` become infinite, as in `tensor.float()` of PyTorch.
fn f64_values(bytes: &[u8]) -> Vec<f32> {
    let (elements, _) = bytes.as_chunks::<8>();
    let wide = elements.iter().map(|raw| f64::from_ne_bytes(*raw));
    wide.map(|wide| wide as f32).collect()
}

/// Converts 16-bit floats of either type, a block at a time: `half` converts slices with vector instructions.
fn half_values<H: Copy>(bytes: &[u8], from_bits: fn(u16) -> H) -> Vec<f32>
where
    [H]: HalfFloatSliceExt,
{
    let mut values = vec![0.0; bytes.len() / 2];
    let mut block = [from_bits(0); BLOCK];
    for (source, target) in bytes.chunks(2 * BLOCK).zip(values.chunks_mut(BLOCK)) {
        for (half, raw) in block.iter_mut().zip(source.as_chunks::<2>().0) {
            *half = from_bits(u16::from_ne_bytes(*raw));
        }
        block[..target.len()].convert_to_f32_slice(target);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dtype: DType, bytes: &[u8], shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        HostTensor::from_bytes("w", dtype, shape.to_vec(), bytes, ByteOrder::Little)
            .map(|tensor| tensor.values)
    }

    /// Returns more than one block of values that all four types hold exactly.
    fn exact() -> Vec<f32> {
        (0..BLOCK + 77)
            .map(|i| (i % 251) as f32 * 0.5 - 31.0)
            .collect()
    }

    #[test]
    fn all_float_kinds_convert() {
        let expected = exact();
        let shape = [expected.len()];
        let f32s: Vec<u8> = expected.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f64s: Vec<u8> = expected
            .iter()
            .flat_map(|&v| f64::from(v).to_le_bytes())
            .collect();
        let f16s: Vec<u8> = expected
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect();
        let bf16s: Vec<u8> = expected
            .iter()
            .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
            .collect();
        assert_eq!(read(DType::F32, &f32s, &shape).unwrap(), expected);
        assert_eq!(read(DType::F64, &f64s, &shape).unwrap(), expected);
        assert_eq!(read(DType::F16, &f16s, &shape).unwrap(), expected);
        assert_eq!(read(DType::BF16, &bf16s, &shape).unwrap(), expected);
    }

    #[test]
    fn unaligned_bytes_are_read() {
        let mut bytes = vec![0u8];
        bytes.extend([1.5f32, -2.25].iter().flat_map(|v| v.to_le_bytes()));
        assert_eq!(read(DType::F32, &bytes[1..], &[2]).unwrap(), [1.5, -2.25]);
    }

    #[test]
    fn special_values_survive() {
        let bytes: Vec<u8> = [0x7c00u16, 0xfc00, 0x0001, 0x7e00]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let values = read(DType::F16, &bytes, &[4]).unwrap();
        assert_eq!(
            values[..3],
            [f32::INFINITY, f32::NEG_INFINITY, 2f32.powi(-24)]
        );
        assert!(values[3].is_nan());
    }

    #[test]
    fn scalars_and_empty_tensors_have_one_and_no_element() {
        assert_eq!(read(DType::F32, &1f32.to_le_bytes(), &[]).unwrap(), [1.0]);
        assert!(read(DType::F16, &[], &[0, 3]).unwrap().is_empty());
    }

    #[test]
    fn integers_and_wrong_lengths_are_errors() {
        assert!(matches!(
            read(DType::I64, &[0; 8], &[1]),
            Err(ModelError::TensorDtype { .. })
        ));
        assert!(matches!(
            read(DType::F32, &[0; 8], &[3]),
            Err(ModelError::TensorShape { .. })
        ));
        assert!(matches!(
            read(DType::F32, &[0; 9], &[2]),
            Err(ModelError::TensorShape { .. })
        ));
        assert!(read(DType::F32, &[0; 8], &[usize::MAX, 2]).is_err());
    }
}
