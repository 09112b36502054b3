//! Writer for a safetensors file: the header, then one tensor after another, without a second copy of all of them.

use super::ExportDType;
use super::host_tensor::checked_product;
use crate::error::ModelError;
use lora_core::file::MAX_HEADER_BYTES;
use lora_core::files::AtomicFile;
use safetensors::tensor::{Metadata, TensorInfo};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Number of elements converted at a time.
const BLOCK: usize = 64 << 10;

/// Alignment of the elements in bytes: the header is padded to it.
const HEADER_ALIGNMENT: usize = 8;

/// Key that the format reserves among the names of tensors.
const METADATA_KEY: &str = "__metadata__";

/// A tensor borrowed for writing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorRef<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// Elements in row-major order.
    pub values: &'a [f32],
}

impl<'a> TensorRef<'a> {
    /// Returns the names and shapes of tensors.
    pub(super) fn shapes(tensors: &[Self]) -> impl Iterator<Item = (&'a str, &'a [usize])> {
        tensors.iter().map(|tensor| (tensor.name, tensor.shape))
    }
}

/// Writes tensors to one safetensors file, sorted by name, and returns its length in bytes.
///
/// The file has the metadata `format=pt`, which `transformers` requires. It is written atomically.
///
/// # Errors
/// [`ModelError::Export`] if two tensors have one name, [`ModelError::TensorShape`] if a shape and its values
/// disagree, [`ModelError::TensorOverflow`] if a value does not fit in `dtype`, [`ModelError::Io`].
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[TensorRef<'_>],
    dtype: ExportDType,
) -> Result<u64, ModelError> {
    let path = path.as_ref();
    let planned = plan_tensors(path, TensorRef::shapes(tensors), dtype)?;
    let values = tensors.iter().map(|tensor| (tensor.name, tensor.values));
    let values: HashMap<&str, &[f32]> = values.collect();
    let (file, bytes) = write_file(path, &planned, dtype, &mut |name| {
        Ok(Cow::Borrowed(values.get(name).copied().unwrap_or_default()))
    })?;
    file.commit()?;
    Ok(bytes)
}

/// Callback that returns the values of a tensor by name, owned or borrowed.
pub(super) type Producer<'p, 'a> = dyn FnMut(&str) -> Result<Cow<'a, [f32]>, ModelError> + 'p;

/// A tensor to be written, with its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlannedTensor<'a> {
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) elements: usize,
    pub(super) bytes: usize,
}

/// Sorts a plan by name and computes the size of each tensor.
///
/// # Errors
/// [`ModelError::Export`] for a repeated or reserved name, and for a size past the machine word.
pub(super) fn plan_tensors<'a>(
    path: &Path,
    plan: impl Iterator<Item = (&'a str, &'a [usize])>,
    dtype: ExportDType,
) -> Result<Vec<PlannedTensor<'a>>, ModelError> {
    let refuse = |message: String| Err(ModelError::export(path, message));
    let mut planned = Vec::new();
    let mut total = 0usize;
    for (name, shape) in plan {
        if name == METADATA_KEY {
            return refuse(format!(
                "`{METADATA_KEY}` is reserved and cannot name a tensor"
            ));
        }
        let elements = checked_product(shape);
        let bytes = elements.and_then(|elements| elements.checked_mul(dtype.size()));
        let sum = bytes.and_then(|bytes| total.checked_add(bytes));
        let (Some(elements), Some(bytes), Some(sum)) = (elements, bytes, sum) else {
            return refuse(format!(
                "the shape {shape:?} of tensor `{name}` is too large"
            ));
        };
        total = sum;
        planned.push(PlannedTensor {
            name,
            shape,
            elements,
            bytes,
        });
    }
    planned.sort_by_key(|tensor| tensor.name);
    if let Some(pair) = planned.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return refuse(format!("two tensors are called `{}`", pair[0].name));
    }
    Ok(planned)
}

/// Writes one file; `produce` returns the values of one tensor at a time, in the order of `tensors`.
///
/// Returns the complete file with its length in bytes. The caller moves it to its place, alone or with others.
///
/// # Errors
/// The errors of [`write_safetensors`], and the errors of `produce`.
pub(super) fn write_file<'a>(
    path: &Path,
    tensors: &[PlannedTensor<'_>],
    dtype: ExportDType,
    produce: &mut Producer<'_, 'a>,
) -> Result<(AtomicFile, u64), ModelError> {
    let header = header(path, tensors, dtype)?;
    let mut out = BufWriter::with_capacity(1 << 20, AtomicFile::create(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| out.write_all(&header))
        .map_err(ModelError::io(path))?;
    let mut length = (size_of::<u64>() + header.len()) as u64;
    let mut bytes = Vec::with_capacity(BLOCK * dtype.size());
    for tensor in tensors {
        let values = produce(tensor.name)?;
        if values.len() != tensor.elements {
            let found = [values.len()];
            return Err(ModelError::shape(tensor.name, tensor.shape, &found));
        }
        for block in values.chunks(BLOCK) {
            bytes.clear();
            dtype.encode(tensor.name, block, &mut bytes)?;
            out.write_all(&bytes).map_err(ModelError::io(path))?;
        }
        length += tensor.bytes as u64;
    }
    let file = out
        .into_inner()
        .map_err(|err| ModelError::io(path)(err.into_error()))?;
    Ok((file, length))
}

/// Builds the JSON header, padded with spaces.
fn header(
    path: &Path,
    tensors: &[PlannedTensor<'_>],
    dtype: ExportDType,
) -> Result<Vec<u8>, ModelError> {
    let refuse = |message: String| ModelError::export(path, message);
    let mut start = 0;
    let entries = tensors.iter().map(|tensor| {
        let end = start + tensor.bytes;
        let info = TensorInfo {
            dtype: dtype.into(),
            shape: tensor.shape.to_vec(),
            data_offsets: (start, end),
        };
        start = end;
        (tensor.name.to_string(), info)
    });
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(format), entries.collect());
    let metadata = metadata.map_err(|err| refuse(err.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|err| refuse(err.to_string()))?;
    // Padded with spaces, so that the elements are aligned.
    json.resize(json.len().next_multiple_of(HEADER_ALIGNMENT), b' ');
    let length = json.len();
    if length as u64 > MAX_HEADER_BYTES {
        return Err(refuse(format!("its header would have {length} bytes")));
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    fn tensor<'a>(name: &'a str, shape: &'a [usize], values: &'a [f32]) -> TensorRef<'a> {
        TensorRef {
            name,
            shape,
            values,
        }
    }

    #[test]
    fn what_is_written_is_read_back_sorted_and_with_its_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let long: Vec<f32> = (0..BLOCK + 3).map(|i| i as f32).collect();
        let tensors = [
            tensor("z", &[2, 1], &[1.5, -2.0]),
            tensor("a", &[BLOCK + 3], &long),
            tensor("s", &[], &[7.0]),
        ];
        let length = write_safetensors(&path, &tensors, ExportDType::F32).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, length);
        assert!(bytes[8..].starts_with(br#"{"__metadata__":{"format":"pt"},"a":{"#));
        assert_eq!(u64::from_le_bytes(*bytes.first_chunk().unwrap()) % 8, 0);
        let checkpoint = Checkpoint::open(&path).unwrap();
        for written in tensors {
            let read = checkpoint.read_f32(written.name).unwrap();
            assert_eq!(
                (read.shape.as_slice(), read.values.as_slice()),
                (written.shape, written.values)
            );
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let twice = [tensor("a", &[1], &[1.0]), tensor("a", &[1], &[2.0])];
        let reserved = [tensor("__metadata__", &[1], &[1.0])];
        let huge = [tensor("a", &[usize::MAX, 2], &[1.0])];
        for tensors in [twice.as_slice(), &reserved, &huge] {
            let result = write_safetensors(&path, tensors, ExportDType::F32);
            assert!(
                matches!(result, Err(ModelError::Export { .. })),
                "{result:?}"
            );
        }
        let short = [tensor("a", &[2], &[1.0])];
        let result = write_safetensors(&path, &short, ExportDType::F32);
        assert!(
            matches!(result, Err(ModelError::TensorShape { .. })),
            "{result:?}"
        );
        let large = [tensor("a", &[1], &[1e6])];
        let result = write_safetensors(&path, &large, ExportDType::F16);
        assert!(
            matches!(result, Err(ModelError::TensorOverflow { .. })),
            "{result:?}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
