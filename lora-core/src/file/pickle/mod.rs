//! A file written by `torch.save`: a pickle of tensors, never executed.
//!
//! | file | contents |
//! | --- | --- |
//! | `scan` | scan of a pickle for anything but tensors |
//! | `archive` | the pickle in the ZIP archive of `torch.save` |
//!
//! `pytorch_reader` interprets the few calls that rebuild tensors. It reads the elements of a tensor on request and
//! gathers them into row-major order if the tensor was a transposed or otherwise strided view. Before that, the scan checks
//! that the pickle holds nothing but tensors.

mod archive;
mod scan;

use crate::error::LoraError;
use crate::files::{DirectoryFile, lfs_pointer, open_regular};
use archive::read_pickle;
use pytorch_reader::{PytorchError, PytorchReader, Tensor};
use safetensors::Dtype;
use scan::{MAX_PICKLE_BYTES, scan};
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
pub struct PickledTensors {
    path: PathBuf,
    reader: PytorchReader,
    file_bytes: u64,
}

impl PickledTensors {
    /// Checks and parses the pickle; no element is read yet.
    ///
    /// # Errors
    /// [`LoraError::Io`], or [`LoraError::Malformed`] if the file is not a dictionary of tensors, describes tensors that do
    /// not fit in it, or is in memory.
    pub fn open(file: impl Into<DirectoryFile>) -> Result<Self, LoraError> {
        let file = file.into();
        let path = file.path();
        if file.is_in_memory() {
            // `pytorch_reader` reads the elements of a pickle from a file only.
            let message = "is a pickle in memory; pickles are read from files only: save the tensors as safetensors";
            return Err(LoraError::malformed(path, message));
        }
        let (mut file, file_bytes) = open_regular(path)?;
        check(&mut file).map_err(|message| LoraError::malformed(path, message))?;
        let reader = PytorchReader::new(path).map_err(|err| pytorch_error(path, err))?;
        for (name, tensor) in reader.tensors() {
            // A view may repeat its storage (a stride of 0), so a small file can describe a tensor of any size. Honest
            // tensors may share a storage, but none of them is longer than its file.
            if tensor.byte_len() as u64 > file_bytes {
                let claimed = tensor.byte_len();
                let message = format!(
                    "tensor `{name}` claims {claimed} bytes, more than the {file_bytes} of the file"
                );
                return Err(LoraError::malformed(path, message));
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            file_bytes,
        })
    }

    /// Length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Names, types and shapes of all tensors, in no order. Names of nested dictionaries are joined by dots.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Dtype, &[usize])> {
        let tensors = self.reader.tensors().iter();
        tensors.map(|(name, tensor)| (name.as_str(), dtype(tensor), tensor.shape()))
    }

    /// Reads the elements of a tensor, in the byte order of this machine; `None` if there is none of the name.
    ///
    /// # Errors
    /// [`LoraError::Io`], or [`LoraError::Malformed`] if they are not in the file.
    pub fn read(&self, name: &str) -> Option<Result<Vec<u8>, LoraError>> {
        let tensor = self.reader.get(name)?;
        Some(tensor.read().map_err(|err| match err.raw_os_error() {
            Some(_) => LoraError::io(&self.path)(err),
            None => LoraError::malformed(&self.path, err.to_string()),
        }))
    }
}

/// Checks the pickle in either of the two containers.
fn check(file: &mut File) -> Result<(), String> {
    let mut magic = Vec::new();
    file.take(64)
        .read_to_end(&mut magic)
        .and_then(|_| file.rewind())
        .map_err(|err| err.to_string())?;
    if magic.starts_with(ZIP_MAGIC) {
        scan(read_pickle(file, MAX_PICKLE_BYTES)?.as_slice(), 1)
    } else if magic.starts_with(LEGACY_MAGIC) {
        scan(BufReader::new(file), LEGACY_PICKLES)
    } else if let Some(message) = lfs_pointer(&magic) {
        Err(message.into())
    } else {
        Err("not a file of torch.save: neither a ZIP archive nor the older format".to_string())
    }
}

fn pytorch_error(path: &Path, err: PytorchError) -> LoraError {
    match err {
        PytorchError::Io(source) if source.raw_os_error().is_some() => LoraError::io(path)(source),
        other => LoraError::malformed(path, other.to_string()),
    }
}

fn dtype(tensor: &Tensor) -> Dtype {
    use pytorch_reader::DType as Pytorch;
    match tensor.dtype() {
        Pytorch::F64 => Dtype::F64,
        Pytorch::F32 => Dtype::F32,
        Pytorch::F16 => Dtype::F16,
        Pytorch::BF16 => Dtype::BF16,
        Pytorch::I64 => Dtype::I64,
        Pytorch::I32 => Dtype::I32,
        Pytorch::I16 => Dtype::I16,
        Pytorch::I8 => Dtype::I8,
        Pytorch::U64 => Dtype::U64,
        Pytorch::U32 => Dtype::U32,
        Pytorch::U16 => Dtype::U16,
        Pytorch::U8 => Dtype::U8,
        Pytorch::Bool => Dtype::BOOL,
    }
}
