//! The tensors of a PEFT file: their names, and a reader that takes the values of one when it is asked for it.

use super::adapter::StoredTensor;
use super::header::read_header;
use super::notes::Notes;
use crate::error::LoraError;
use crate::layout::LayerKind::{self, Embedding, Linear};
use burn::tensor::{Bytes, DType, TensorData};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Prefix of every tensor name of a PEFT adapter.
pub const PREFIX: &str = "base_model.model.";
/// Name of the file with the tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// Role of a tensor within an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TensorRole {
    /// `Aᵀ` `[r, d_in]`.
    A,
    /// `Bᵀ` `[d_out, r]`.
    B,
    /// DoRA's magnitude `[d_out]`.
    Magnitude,
    /// The bias on `B`, `[d_out]`.
    Bias,
}

/// Suffixes of PEFT's tensor names, with the kind of layer where the name says it.
const SUFFIXES: [(&str, TensorRole, Option<LayerKind>); 6] = [
    (".lora_A.weight", TensorRole::A, Some(Linear)),
    (".lora_B.weight", TensorRole::B, Some(Linear)),
    (".lora_embedding_A", TensorRole::A, Some(Embedding)),
    (".lora_embedding_B", TensorRole::B, Some(Embedding)),
    (".lora_magnitude_vector", TensorRole::Magnitude, None),
    (".lora_B.bias", TensorRole::Bias, None),
];

/// Returns the name, with PEFT's prefix, of a tensor of a module's adapter.
pub(crate) fn tensor_name(module: &str, role: TensorRole, kind: LayerKind) -> String {
    let mut suffixes = SUFFIXES.iter();
    let suffix = suffixes.find(|suffix| suffix.1 == role && suffix.2.is_none_or(|k| k == kind));
    format!("{PREFIX}{module}{}", suffix.map_or("", |suffix| suffix.0))
}

/// Splits a name without PEFT's prefix into the module and the role of the tensor, with the kind of layer where the name
/// says it; `None` if the tensor is no part of a low-rank adapter.
pub fn split_name(name: &str) -> Option<(&str, TensorRole, Option<LayerKind>)> {
    SUFFIXES
        .iter()
        .find_map(|&(suffix, role, kind)| Some((name.strip_suffix(suffix)?, role, kind)))
}

/// Tensors of an adapter by their names in the file. Values are read when asked for.
#[derive(Debug)]
pub struct AdapterTensors {
    path: PathBuf,
    file: Mutex<File>,
    header: Metadata,
    /// Offset of the first value, in bytes.
    data_start: u64,
    /// Notes beside the tensors, without the format.
    metadata: BTreeMap<String, String>,
}

impl AdapterTensors {
    /// Opens a safetensors file and checks its header; no value is read.
    ///
    /// # Errors
    /// [`LoraError::Io`], or [`LoraError::Malformed`] if the header or a note of this crate is.
    pub(crate) fn open(path: PathBuf) -> Result<Self, LoraError> {
        let io = LoraError::io;
        if !std::fs::metadata(&path).map_err(io(&path))?.is_file() {
            return Err(LoraError::malformed(path, "is not a regular file"));
        }
        let file = File::open(&path).map_err(io(&path))?;
        let bytes = file.metadata().map_err(io(&path))?.len();
        let header = read_header(&file, bytes);
        let (header, data_start) =
            header.map_err(|message| LoraError::malformed(&path, message))?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter();
        let metadata = metadata.filter(|(key, _)| key != "format").collect();
        Notes::of_file(&path, &metadata)?;
        Ok(Self {
            path,
            file: Mutex::new(file),
            header,
            data_start,
            metadata,
        })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes in the file beside its tensors, by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.header.offset_keys();
        names.sort();
        names
    }

    /// Shape of a tensor; `None` if there is none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| info.shape.as_slice())
    }

    /// Reads a tensor of f32, f16, bf16 or f64 as f32.
    ///
    /// # Errors
    /// [`LoraError::MissingTensors`] if there is none of that name, [`LoraError::Malformed`] if it has another type or
    /// values that are not finite, or [`LoraError::Io`].
    pub fn read(&self, name: &str) -> Result<StoredTensor, LoraError> {
        let malformed = |message: &str| self.malformed(format!("tensor `{name}` {message}"));
        let info = self.header.info(name);
        let info = info.ok_or_else(|| LoraError::MissingTensors {
            path: self.path.clone(),
            names: vec![name.into()],
        })?;
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            other => {
                let message = format!("is {other:?}, expected F32, F16, BF16 or F64");
                return Err(malformed(&message));
            }
        };
        let (from, to) = info.data_offsets;
        // The header was checked against the length of the file.
        let mut bytes = vec![0; to - from];
        let mut read = || {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(self.data_start + from as u64))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(LoraError::io(&self.path))?;
        let bytes = Bytes::from_bytes_vec(bytes);
        let data = TensorData::from_bytes(bytes, info.shape.clone(), dtype);
        let values = data.convert::<f32>().try_to_vec::<f32>();
        let values = values.map_err(|error| malformed(&format!("is unreadable: {error:?}")))?;
        let tensor = StoredTensor::new(info.shape.clone(), values);
        match tensor.values.iter().find(|value| !value.is_finite()) {
            None => Ok(tensor),
            Some(bad) => Err(malformed(&format!(
                "has values that are not finite, such as {bad}: it was saved from a run that diverged"
            ))),
        }
    }

    /// Reads the values of a tensor that must have this shape.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`LoraError::TensorShape`].
    pub fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, LoraError> {
        match self.shape(name) {
            Some(found) if found != expected => Err(LoraError::TensorShape {
                path: self.path.clone(),
                name: name.into(),
                expected: expected.to_vec(),
                found: found.to_vec(),
            }),
            _ => Ok(self.read(name)?.values),
        }
    }

    /// Returns the error of a file that holds something else than it should.
    pub(crate) fn malformed(&self, message: String) -> LoraError {
        LoraError::malformed(&self.path, message)
    }
}
