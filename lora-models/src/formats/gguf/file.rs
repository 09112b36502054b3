//! Container of GGUF, version 3 ([specification](https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)), as bytes: a header,
//! metadata, descriptions of the tensors, and their values.

use std::io::{self, Write};

/// Multiple that the offset of each tensor has, in bytes; the default of the format.
const ALIGNMENT: usize = 32;
const VERSION: u32 = 3;
const TYPE_F32: u32 = 0;

/// Value of a key in the metadata.
pub(super) enum Value<'a> {
    U32(u32),
    String(&'a str),
}

/// Tensor of 32-bit floats.
pub(super) struct Tensor {
    pub name: String,
    /// Shape in PyTorch's order, the axis of adjacent values last.
    pub shape: [usize; 2],
    pub values: Vec<f32>,
}

impl Tensor {
    /// Size of the values in the file, with the bytes that align the next tensor.
    fn size(&self) -> usize {
        (self.values.len() * size_of::<f32>()).next_multiple_of(ALIGNMENT)
    }
}

/// Writes metadata and tensors.
pub(super) fn write(
    out: &mut dyn Write,
    metadata: &[(&str, Value<'_>)],
    tensors: &[Tensor],
) -> io::Result<()> {
    let mut head = Vec::new();
    head.extend_from_slice(b"GGUF");
    head.extend_from_slice(&VERSION.to_le_bytes());
    put_size(&mut head, tensors.len());
    put_size(&mut head, metadata.len());
    for (key, value) in metadata {
        put_string(&mut head, key);
        match value {
            Value::U32(number) => {
                head.extend_from_slice(&4u32.to_le_bytes());
                head.extend_from_slice(&number.to_le_bytes());
            }
            Value::String(text) => {
                head.extend_from_slice(&8u32.to_le_bytes());
                put_string(&mut head, text);
            }
        }
    }
    let mut offset = 0;
    for tensor in tensors {
        put_string(&mut head, &tensor.name);
        head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for size in tensor.shape.iter().rev() {
            put_size(&mut head, *size);
        }
        head.extend_from_slice(&TYPE_F32.to_le_bytes());
        put_size(&mut head, offset);
        offset += tensor.size();
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    out.write_all(&head)?;
    for tensor in tensors {
        let mut bytes: Vec<u8> = tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        bytes.resize(tensor.size(), 0);
        out.write_all(&bytes)?;
    }
    Ok(())
}

fn put_size(bytes: &mut Vec<u8>, size: usize) {
    bytes.extend_from_slice(&(size as u64).to_le_bytes());
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    put_size(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}
