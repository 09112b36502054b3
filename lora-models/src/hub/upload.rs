//! Files to upload.

use super::http::Failure;
use crate::error::ModelError;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Number of bytes at the start of a file by which the server tells text from binary files.
const SAMPLE: u64 = 512;

/// A file to upload.
#[derive(Debug)]
pub(super) struct Upload {
    /// Name in the repository.
    pub(super) name: String,
    path: PathBuf,
    file: File,
    /// Length in bytes.
    pub(super) size: u64,
    /// First bytes.
    pub(super) sample: Vec<u8>,
    /// SHA-256 in hexadecimal digits, its name in the storage.
    pub(super) sha256: String,
}

impl Upload {
    /// Reads an open file once, for its hash.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub(super) fn new(
        name: String,
        path: PathBuf,
        mut file: File,
        size: u64,
    ) -> Result<Self, ModelError> {
        let mut sample = Vec::new();
        let mut hash = Sha256::new();
        let mut read = || {
            (&file).take(SAMPLE).read_to_end(&mut sample)?;
            file.rewind()?;
            std::io::copy(&mut file, &mut HashWriter(&mut hash))
        };
        read().map_err(ModelError::io(&path))?;
        let sha256 = hash.finalize();
        let sha256 = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            name,
            path,
            file,
            size,
            sample,
            sha256,
        })
    }

    /// Returns the bytes from an offset on.
    pub(super) fn at(&mut self, offset: u64) -> Result<&mut File, Failure> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.map_err(ModelError::io(&self.path))?;
        Ok(&mut self.file)
    }

    /// Reads the whole file.
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Failure> {
        let (size, mut bytes) = (self.size, Vec::new());
        let read = self.at(0)?.take(size).read_to_end(&mut bytes);
        read.map_err(ModelError::io(&self.path))?;
        Ok(bytes)
    }
}

struct HashWriter<'h>(&'h mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
