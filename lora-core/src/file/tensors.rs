//! The tensors of a PEFT file, whose values are read one by one when they are asked for.

use super::adapter::StoredTensor;
use super::container::Container;
use super::notes::Notes;
use super::spellings::peft_names;
use crate::error::LoraError;
use crate::files::{Directory, DirectoryFile};
use burn::tensor::{Bytes, DType, TensorData};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the file with the tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Name of the file in which PEFT pickled the tensors before, and does with `safe_serialization=False`.
pub const PICKLED_FILE: &str = "adapter_model.bin";

/// Tensors of an adapter by PEFT's names, whichever way the file spells them. Values are read when asked for.
#[derive(Debug)]
pub struct AdapterTensors {
    path: PathBuf,
    file: Container,
    /// Names in the file, by PEFT's names.
    names: BTreeMap<String, String>,
    remarks: Vec<String>,
    /// Notes beside the tensors, without the format.
    metadata: BTreeMap<String, String>,
}

impl AdapterTensors {
    /// Opens the file of an adapter directory: safetensors, or else a pickle, which is scanned and never executed. No value is
    /// read.
    ///
    /// # Errors
    /// [`LoraError::Io`], or [`LoraError::Malformed`] if the file breaks its format, a note of this crate is malformed, or
    /// the file holds several adapters or an empty tensor.
    pub(crate) fn open_in(dir: &Directory) -> Result<Self, LoraError> {
        let [file, pickled] = [WEIGHTS_FILE, PICKLED_FILE].map(|name| dir.file(name));
        let opened = if !file.exists() && pickled.exists() {
            pickled
        } else {
            file
        };
        let file = Container::open(&opened)?;
        let path = opened.path().to_path_buf();
        let mut metadata = file.metadata().clone();
        metadata.remove("format");
        Notes::of_file(&path, &metadata)?;
        let spelled = peft_names(file.names());
        let spelled = spelled.map_err(|message| LoraError::malformed(&path, message))?;
        let is_empty = |in_file: &&String| {
            let info = file.info(in_file);
            info.is_some_and(|info| info.shape.contains(&0))
        };
        if let Some(name) = spelled.names.values().find(is_empty) {
            let message = format!(
                "tensor `{name}` is empty: DeepSpeed's ZeRO-3 and FSDP write such files if the shards are not gathered before the \
                 adapter is saved"
            );
            return Err(LoraError::malformed(&path, message));
        }
        Ok(Self {
            path,
            names: spelled.names,
            remarks: spelled.remarks,
            file,
            metadata,
        })
    }

    /// Opens a file, safetensors or a pickle, whose names are used as they are.
    ///
    /// # Errors
    /// [`LoraError::Io`], or [`LoraError::Malformed`] if the file breaks its format.
    pub fn open(file: impl Into<DirectoryFile>) -> Result<Self, LoraError> {
        let file = file.into();
        let path = file.path().to_path_buf();
        let file = Container::open(&file)?;
        let names = file
            .names()
            .map(|name| (name.to_string(), name.to_string()));
        Ok(Self {
            path,
            names: names.collect(),
            remarks: Vec::new(),
            metadata: file.metadata().clone(),
            file,
        })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Differences between the names in the file and PEFT's, as noun phrases: they were read as if there were none.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Notes in the file beside its tensors, by key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Name in the file of a tensor; `None` if there is none of that name.
    pub fn name_in_file(&self, name: &str) -> Option<&str> {
        self.names.get(name).map(String::as_str)
    }

    /// Shape of a tensor; `None` if there is none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let info = self.file.info(self.name_in_file(name)?)?;
        Some(info.shape.as_slice())
    }

    /// Reads a tensor of f32, f16, bf16 or f64 as f32.
    ///
    /// # Errors
    /// [`LoraError::MissingTensors`] if there is none of that name, [`LoraError::Malformed`] if it has another type or
    /// values that are not finite, or [`LoraError::Io`].
    pub fn read(&self, name: &str) -> Result<StoredTensor, LoraError> {
        let malformed = |message: &str| self.malformed(format!("tensor `{name}` {message}"));
        let in_file = self.name_in_file(name).unwrap_or(name);
        let info = self.file.info(in_file);
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
        let bytes = Bytes::from_bytes_vec(self.file.read(in_file)?);
        let data = TensorData::from_bytes(bytes, info.shape.clone(), dtype);
        let values = data.convert::<f32>().try_to_vec::<f32>();
        let values = values.map_err(|error| malformed(&format!("is unreadable: {error:?}")))?;
        let tensor = StoredTensor::new(info.shape.clone(), values);
        tensor.check_finite(&self.path, name)?;
        Ok(tensor)
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
