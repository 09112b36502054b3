//! The file with an adapter's tensors: safetensors, or a pickle of `torch.save`.

use super::header::read_header;
use super::pickle::PickledTensors;
use crate::error::LoraError;
use crate::files::{DirectoryFile, Opened};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// An opened file of tensors, by their names in the file. Their bytes are read when asked for.
#[derive(Debug)]
pub(super) struct Container {
    path: PathBuf,
    infos: HashMap<String, Info>,
    metadata: BTreeMap<String, String>,
    content: Content,
}

/// Type, shape and place of a tensor.
#[derive(Debug)]
pub(super) struct Info {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Offsets of its bytes in the data of a safetensors file.
    place: (usize, usize),
}

#[derive(Debug)]
enum Content {
    /// The file, with the offset of the first value in bytes.
    Safetensors(Mutex<Opened>, u64),
    Pickle(PickledTensors),
}

impl Container {
    /// Opens a file and checks its header or pickle; no value is read.
    ///
    /// # Errors
    /// [`LoraError::Io`], or [`LoraError::Malformed`] if the file breaks its format.
    pub fn open(file: &DirectoryFile) -> Result<Self, LoraError> {
        let path = file.path();
        if path
            .extension()
            .is_some_and(|ending| ending == "safetensors")
        {
            return Self::safetensors(file);
        }
        let tensors = PickledTensors::open(file)?;
        let infos = tensors.tensors().map(|(name, dtype, shape)| {
            let (shape, place) = (shape.to_vec(), (0, 0));
            (
                name.to_string(),
                Info {
                    dtype,
                    shape,
                    place,
                },
            )
        });
        Ok(Self {
            path: path.into(),
            infos: infos.collect(),
            metadata: BTreeMap::new(),
            content: Content::Pickle(tensors),
        })
    }

    fn safetensors(file: &DirectoryFile) -> Result<Self, LoraError> {
        let path = file.path();
        let (mut file, bytes) = file.open()?;
        let header = read_header(&mut file, bytes);
        let (header, data_start): (Metadata, u64) =
            header.map_err(|message| LoraError::malformed(path, message))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let infos = header.tensors().into_iter().map(|(name, stored)| {
            let info = Info {
                dtype: stored.dtype,
                shape: stored.shape.clone(),
                place: stored.data_offsets,
            };
            (name, info)
        });
        Ok(Self {
            path: path.into(),
            infos: infos.collect(),
            metadata: metadata.into_iter().collect(),
            content: Content::Safetensors(Mutex::new(file), data_start),
        })
    }

    /// Metadata of a safetensors file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.infos.keys().map(String::as_str)
    }

    /// Type and shape of a tensor; `None` if there is none of the name.
    pub fn info(&self, name: &str) -> Option<&Info> {
        self.infos.get(name)
    }

    /// Reads the bytes of a tensor.
    ///
    /// # Errors
    /// [`LoraError::Io`], [`LoraError::Malformed`], or [`LoraError::MissingTensors`] if there is none of the name.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, LoraError> {
        let missing = || LoraError::MissingTensors {
            path: self.path.clone(),
            names: vec![name.into()],
        };
        let (from, to) = self.info(name).ok_or_else(missing)?.place;
        match &self.content {
            Content::Pickle(tensors) => tensors.read(name).ok_or_else(missing)?,
            Content::Safetensors(file, data_start) => {
                // The header was checked against the length of the file.
                let mut bytes = vec![0; to - from];
                let mut read = || {
                    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                    file.seek(SeekFrom::Start(data_start + from as u64))?;
                    file.read_exact(&mut bytes)
                };
                read().map_err(LoraError::io(&self.path))?;
                Ok(bytes)
            }
        }
    }
}
