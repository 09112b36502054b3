//! A file written by `torch.save`, as a file of a checkpoint.

use super::host_tensor::{ByteOrder, HostTensor, not_float};
use super::{TensorFile, TensorInfo, is_float};
use crate::error::ModelError;
use lora_core::file::PickledTensors;
use lora_core::files::DirectoryFile;
use std::collections::HashMap;

/// A file of pickled tensors whose elements have not been read yet.
#[derive(Debug)]
pub(super) struct PickleFile {
    tensors: PickledTensors,
    infos: HashMap<String, TensorInfo>,
}

impl PickleFile {
    /// Checks and parses the pickle; no element is read yet.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::Malformed`] if the file is not a dictionary of tensors, or describes
    /// tensors that do not fit in it.
    pub(super) fn open(file: &DirectoryFile) -> Result<Self, ModelError> {
        let tensors = PickledTensors::open(file).map_err(ModelError::of_file)?;
        let infos = tensors.tensors().map(|(name, dtype, shape)| {
            let shape = shape.to_vec();
            (name.to_string(), TensorInfo { dtype, shape })
        });
        Ok(Self {
            infos: infos.collect(),
            tensors,
        })
    }
}

impl TensorFile for PickleFile {
    fn file_bytes(&self) -> u64 {
        self.tensors.file_bytes()
    }

    fn tensors(&self) -> Vec<(String, TensorInfo)> {
        let infos = self.infos.iter();
        infos
            .map(|(name, info)| (name.clone(), info.clone()))
            .collect()
    }

    fn read_f32(&self, name: &str) -> Option<Result<HostTensor, ModelError>> {
        let TensorInfo { dtype, shape } = self.infos.get(name)?.clone();
        if !is_float(dtype) {
            return Some(Err(not_float(name, dtype)));
        }
        let bytes = self.tensors.read(name)?.map_err(ModelError::of_file);
        Some(bytes.and_then(|bytes| {
            HostTensor::from_bytes(name, dtype, shape, &bytes, ByteOrder::Native)
        }))
    }
}
