//! A file written by `torch.save`: a pickle of tensors, never executed.
//!
//! `pytorch_reader` interprets the few calls that rebuild tensors. It reads the elements of a tensor on request and
//! gathers them into row-major order if the tensor was a transposed or otherwise strided view. Before that,
//! [`super::pickle_scan`] checks that the pickle holds nothing but tensors.

use super::bounded::open_regular;
use super::dtype::from_pytorch;
use super::host_tensor::{ByteOrder, HostTensor, not_float};
use super::pickle_scan::{MAX_PICKLE_BYTES, scan};
use super::zip_archive::read_pickle;
use super::{TensorFile, TensorInfo, is_float};
use crate::error::ModelError;
use pytorch_reader::{PytorchError, PytorchReader, Tensor};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

/// First bytes of a ZIP archive: PyTorch 1.6 and later.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// First bytes of the older format: the magic number 0x1950a86a20f9469cfc6c, pickled with protocol 2.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// Number of pickles at the start of the older format: magic number, version, machine, tensors, storage keys.
const LEGACY_PICKLES: usize = 5;

/// A file of pickled tensors whose elements have not been read yet.
#[derive(Debug)]
pub(super) struct PickleFile {
    path: PathBuf,
    reader: PytorchReader,
    file_bytes: u64,
}

impl PickleFile {
    /// Checks and parses the pickle; no element is read yet.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::Malformed`] if the file is not a dictionary of tensors, or describes
    /// tensors that do not fit in it.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let (mut file, file_bytes) = open_regular(path)?;
        check(&mut file).map_err(|message| ModelError::malformed(path, message))?;
        let reader = PytorchReader::new(path).map_err(|err| pytorch_error(path, err))?;
        for (name, tensor) in reader.tensors() {
            // A view may repeat its storage (a stride of 0), so a small file can describe a tensor of any size. Honest
            // tensors may share a storage, but none of them is longer than its file.
            if tensor.byte_len() as u64 > file_bytes {
                let claimed = tensor.byte_len();
                let message = format!(
                    "tensor `{name}` claims {claimed} bytes, more than the {file_bytes} of the file"
                );
                return Err(ModelError::malformed(path, message));
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            file_bytes,
        })
    }

    fn read(&self, name: &str, tensor: &Tensor) -> Result<HostTensor, ModelError> {
        let dtype = from_pytorch(tensor.dtype());
        if !is_float(dtype) {
            return Err(not_float(name, dtype));
        }
        let bytes = tensor.read().map_err(|err| match err.raw_os_error() {
            Some(_) => ModelError::io(&self.path)(err),
            None => ModelError::malformed(&self.path, err.to_string()),
        })?;
        HostTensor::from_bytes(
            name,
            dtype,
            tensor.shape().to_vec(),
            &bytes,
            ByteOrder::Native,
        )
    }
}

impl TensorFile for PickleFile {
    fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    fn tensors(&self) -> Vec<(String, TensorInfo)> {
        let tensors = self.reader.tensors().iter().map(|(name, tensor)| {
            let info = TensorInfo {
                dtype: from_pytorch(tensor.dtype()),
                shape: tensor.shape().to_vec(),
            };
            (name.to_string(), info)
        });
        tensors.collect()
    }

    fn read_f32(&self, name: &str) -> Option<Result<HostTensor, ModelError>> {
        self.reader.get(name).map(|tensor| self.read(name, tensor))
    }
}

/// Checks the pickle in either of the two containers.
fn check(file: &mut File) -> Result<(), String> {
    let mut magic = Vec::new();
    file.take(LEGACY_MAGIC.len() as u64)
        .read_to_end(&mut magic)
        .and_then(|_| file.rewind())
        .map_err(|err| err.to_string())?;
    if magic.starts_with(ZIP_MAGIC) {
        scan(read_pickle(file, MAX_PICKLE_BYTES)?.as_slice(), 1)
    } else if magic == LEGACY_MAGIC {
        scan(BufReader::new(file), LEGACY_PICKLES)
    } else {
        Err("not a file of torch.save: neither a ZIP archive nor the older format".to_string())
    }
}

fn pytorch_error(path: &Path, err: PytorchError) -> ModelError {
    match err {
        PytorchError::Io(source) if source.raw_os_error().is_some() => ModelError::io(path)(source),
        other => ModelError::malformed(path, other.to_string()),
    }
}
