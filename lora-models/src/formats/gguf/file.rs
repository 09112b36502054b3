//! Container of GGUF, version 3, as it is written: a header, metadata, descriptions of the tensors, and their values.

use super::element::ElementType;
use crate::ModelError;
use lora_core::files::{Overwrite, write_file};
use std::io::{self, Write};
use std::path::Path;

/// Multiple that the offset of each tensor has, in bytes; the default of the format.
pub(super) const ALIGNMENT: usize = 32;
/// First bytes of a file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// Version of the format.
pub(super) const VERSION: u32 = 3;

/// Value of a key in the metadata.
pub(super) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    Numbers(Vec<i32>),
}

impl Value {
    /// Returns the number of the type in a file.
    fn code(&self) -> u32 {
        match self {
            Self::U32(_) => 4,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Strings(_) | Self::Numbers(_) => 9,
        }
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::U32(number) => bytes.extend(number.to_le_bytes()),
            Self::F32(number) => bytes.extend(number.to_le_bytes()),
            Self::Bool(truth) => bytes.push(u8::from(*truth)),
            Self::String(text) => put_string(bytes, text),
            Self::Strings(all) => {
                bytes.extend(8u32.to_le_bytes());
                put_size(bytes, all.len());
                all.iter().for_each(|text| put_string(bytes, text));
            }
            Self::Numbers(all) => {
                bytes.extend(5u32.to_le_bytes());
                put_size(bytes, all.len());
                bytes.extend(all.iter().flat_map(|number| number.to_le_bytes()));
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

/// Tensor to be written.
pub(super) struct Planned {
    pub name: String,
    /// Shape in PyTorch's order, the axis of adjacent values last.
    pub shape: Vec<usize>,
    pub dtype: ElementType,
}

impl Planned {
    /// Size of the values in the file, with the bytes that align the next tensor.
    pub(super) fn size(&self) -> usize {
        let values = self.shape.iter().product();
        let bytes = self.dtype.bytes(values).unwrap_or(0);
        bytes.next_multiple_of(ALIGNMENT)
    }
}

/// Writes metadata and tensors, whose values are asked for by their index. Returns the number of bytes.
///
/// # Errors
/// [`ModelError::TensorShape`] if the values are not those of the shape; what `values` returns; [`ModelError::Io`].
pub(super) fn write(
    path: &Path,
    metadata: &[(String, Value)],
    tensors: &[Planned],
    values: &mut dyn FnMut(usize) -> Result<Vec<f32>, ModelError>,
) -> Result<u64, ModelError> {
    let mut written = Ok(0);
    let finished = write_file(path, Overwrite::Refuse, |out| {
        written = write_to(path, out, metadata, tensors, values);
        match &written {
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    });
    let written = written?;
    finished?;
    Ok(written)
}

fn write_to(
    path: &Path,
    out: &mut dyn Write,
    metadata: &[(String, Value)],
    tensors: &[Planned],
    values: &mut dyn FnMut(usize) -> Result<Vec<f32>, ModelError>,
) -> Result<u64, ModelError> {
    let io = |source: io::Error| ModelError::Io {
        path: path.into(),
        source,
    };
    let head = head(metadata, tensors);
    out.write_all(&head).map_err(io)?;
    let mut written = head.len() as u64;
    for (index, tensor) in tensors.iter().enumerate() {
        let values = values(index)?;
        if values.len() != tensor.shape.iter().product::<usize>() {
            let message = format!(
                "`{}` has {} values for the shape {:?}",
                tensor.name,
                values.len(),
                tensor.shape
            );
            return Err(ModelError::export(path, message));
        }
        let mut bytes = Vec::with_capacity(tensor.size());
        tensor.dtype.encode(&tensor.name, &values, &mut bytes)?;
        bytes.resize(tensor.size(), 0);
        out.write_all(&bytes).map_err(io)?;
        written += bytes.len() as u64;
    }
    Ok(written)
}

/// Returns the bytes before the values.
fn head(metadata: &[(String, Value)], tensors: &[Planned]) -> Vec<u8> {
    let mut head = Vec::new();
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    put_size(&mut head, tensors.len());
    put_size(&mut head, metadata.len());
    for (key, value) in metadata {
        put_string(&mut head, key);
        head.extend(value.code().to_le_bytes());
        value.put(&mut head);
    }
    let mut offset = 0;
    for tensor in tensors {
        put_string(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor
            .shape
            .iter()
            .rev()
            .for_each(|&size| put_size(&mut head, size));
        head.extend(tensor.dtype.code().to_le_bytes());
        put_size(&mut head, offset);
        offset += tensor.size();
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    head
}

fn put_size(bytes: &mut Vec<u8>, size: usize) {
    bytes.extend((size as u64).to_le_bytes());
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    put_size(bytes, text.len());
    bytes.extend(text.as_bytes());
}
