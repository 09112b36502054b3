//! Container of GGUF, as it is read: the tensors of a file. Metadata is skipped.

use super::element::ElementType;
use super::file::{ALIGNMENT, MAGIC, VERSION};
use crate::ModelError;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Maximum number of tensors, and of keys.
const MAX_ENTRIES: u64 = 1 << 18;
/// Maximum length of the name of a tensor, in bytes.
const MAX_NAME: u64 = 1 << 10;
const MAX_AXES: u32 = 4;

/// File that is open.
pub(super) struct GgufFile {
    path: PathBuf,
    file: BufReader<File>,
    /// Number of bytes.
    length: u64,
    tensors: HashMap<String, Entry>,
    /// Offset of the values in the file.
    values: u64,
}

#[derive(Clone)]
struct Entry {
    shape: Vec<usize>,
    dtype: ElementType,
    offset: u64,
    bytes: usize,
}

impl GgufFile {
    /// Opens a file, and checks that its tensors lie within it.
    ///
    /// # Errors
    /// [`ModelError::Io`], and [`ModelError::Malformed`] for another format, version or element type.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut gguf = Self {
            path: path.into(),
            file: BufReader::new(file),
            length,
            tensors: HashMap::new(),
            values: 0,
        };
        if &gguf.bytes::<4>()? != MAGIC || gguf.u32()? != VERSION {
            return Err(gguf.malformed("it is no GGUF of version 3"));
        }
        let [tensors, keys] = [gguf.u64()?, gguf.u64()?];
        if tensors.max(keys) > MAX_ENTRIES {
            return Err(gguf.malformed(format!("it has {tensors} tensors and {keys} keys")));
        }
        for _ in 0..keys {
            gguf.skip_string()?;
            let code = gguf.u32()?;
            gguf.skip_value(code)?;
        }
        let mut entries = Vec::new();
        for _ in 0..tensors {
            entries.push(gguf.entry()?);
        }
        let head = gguf.file.stream_position().map_err(io)?;
        gguf.values = head.next_multiple_of(ALIGNMENT as u64);
        for (name, entry) in entries {
            let end = (gguf.values.checked_add(entry.offset))
                .and_then(|at| at.checked_add(entry.bytes as u64));
            if end.is_none_or(|end| end > length)
                || gguf.tensors.insert(name.clone(), entry).is_some()
            {
                return Err(
                    gguf.malformed(format!("`{name}` is there twice, or ends behind the file"))
                );
            }
        }
        Ok(gguf)
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// If there is none of this name and shape, or the file cannot be read.
    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let entry = self.tensors.get(name).cloned();
        let entry = entry.ok_or_else(|| ModelError::missing(name).at(&self.path))?;
        if entry.shape != shape {
            let message = format!(
                "`{name}` has the shape {:?}, expected {shape:?}",
                entry.shape
            );
            return Err(self.malformed(message));
        }
        let place = SeekFrom::Start(self.values + entry.offset);
        let mut bytes = vec![0; entry.bytes];
        let read = self
            .file
            .seek(place)
            .and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|source| self.io(source))?;
        Ok(entry.dtype.decode(&bytes))
    }

    fn entry(&mut self) -> Result<(String, Entry), ModelError> {
        let length = self.u64()?;
        if length > MAX_NAME {
            return Err(self.malformed(format!("a name of {length} bytes")));
        }
        let mut name = vec![0; length as usize];
        self.fill(&mut name)?;
        let name =
            String::from_utf8(name).map_err(|_| self.malformed("a name that is not UTF-8"))?;
        let axes = self.u32()?;
        if axes > MAX_AXES {
            return Err(self.malformed(format!("`{name}` has {axes} axes")));
        }
        let mut shape = Vec::new();
        for _ in 0..axes {
            shape.push(self.u64()? as usize);
        }
        shape.reverse();
        let code = self.u32()?;
        let offset = self.u64()?;
        let count = shape
            .iter()
            .try_fold(1usize, |all, &size| all.checked_mul(size));
        let dtype = ElementType::of_code(code);
        let bytes = dtype
            .zip(count)
            .and_then(|(dtype, count)| dtype.bytes(count));
        match (dtype, bytes) {
            (Some(dtype), Some(bytes)) => Ok((
                name,
                Entry {
                    shape,
                    dtype,
                    offset,
                    bytes,
                },
            )),
            _ => Err(self.malformed(format!(
                "`{name}` has the type {code} and the shape {shape:?}"
            ))),
        }
    }

    fn skip_value(&mut self, code: u32) -> Result<(), ModelError> {
        const STRING: u32 = 8;
        const ARRAY: u32 = 9;
        let (code, count) = match code {
            ARRAY => (self.u32()?, self.u64()?),
            _ => (code, 1),
        };
        if code == STRING {
            // Each has at least the bytes of its length.
            if count > self.length / 8 {
                return Err(self.malformed(format!("an array of {count} strings")));
            }
            return (0..count).try_for_each(|_| self.skip_string());
        }
        let size = match code {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            _ => return Err(self.malformed(format!("a value of type {code}"))),
        };
        self.skip(count.saturating_mul(size))
    }

    fn skip_string(&mut self) -> Result<(), ModelError> {
        let length = self.u64()?;
        self.skip(length)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), ModelError> {
        match i64::try_from(bytes) {
            Ok(bytes) if bytes as u64 <= self.length => {
                (self.file.seek_relative(bytes)).map_err(|source| self.io(source))
            }
            _ => Err(self.malformed(format!("a value of {bytes} bytes"))),
        }
    }

    fn u32(&mut self) -> Result<u32, ModelError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ModelError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ModelError> {
        let read = self.file.read_exact(bytes);
        read.map_err(|source| self.io(source))
    }

    fn io(&self, source: std::io::Error) -> ModelError {
        ModelError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn malformed(&self, message: impl Into<String>) -> ModelError {
        ModelError::malformed(&self.path, message)
    }
}
