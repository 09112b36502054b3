//! Files to upload.

use crate::error::ModelError;
use lora_core::files::{Opened, lfs_pointer};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Number of bytes at the start of a file by which the server tells text from binary files.
const SAMPLE: u64 = 512;

/// Limit for a file within a commit, in bytes; the Hub has the same.
pub(super) const MAX_INLINE_BYTES: u64 = 10_000_000;

/// A file to upload, as it was when it was opened.
#[derive(Debug)]
pub(super) struct LocalFile {
    /// Name in the repository.
    pub(super) name: String,
    path: PathBuf,
    content: Opened,
    /// Length in bytes.
    pub(super) size: u64,
    /// First bytes.
    pub(super) sample: Vec<u8>,
    /// SHA-256 in hexadecimal digits, its name in the storage.
    pub(super) sha256: String,
    /// SHA-1 by which git names it; `None` for a file that is too large for git.
    pub(super) git: Option<String>,
}

impl LocalFile {
    /// Reads `size` bytes once, for their hashes.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] for a Git LFS pointer and a file with fewer bytes; [`ModelError::Io`].
    pub(super) fn new(
        name: String,
        path: PathBuf,
        content: Opened,
        size: u64,
    ) -> Result<Self, ModelError> {
        let mut file = Self {
            name,
            path,
            content,
            size,
            sample: Vec::new(),
            sha256: String::new(),
            git: None,
        };
        let mut hashes = Hashes {
            sha256: Sha256::new(),
            git: (size <= MAX_INLINE_BYTES).then(|| git_object(size)),
        };
        let mut sample = Vec::new();
        let mut read = || {
            file.content.rewind()?;
            let mut start = (&mut file.content).take(SAMPLE.min(size));
            let start = start.read_to_end(&mut sample)?;
            file.content.rewind()?;
            let read = io::copy(&mut (&mut file.content).take(size), &mut hashes)?;
            Ok(read == size && start as u64 == SAMPLE.min(size))
        };
        if !read().map_err(ModelError::io(&file.path))? {
            return Err(file.changed());
        }
        if let Some(message) = lfs_pointer(&sample) {
            return Err(ModelError::malformed(&file.path, message));
        }
        file.sample = sample;
        file.sha256 = digits(hashes.sha256);
        file.git = hashes.git.map(digits);
        Ok(file)
    }

    /// Returns a reader of `size` bytes from an offset on.
    pub(super) fn part(&mut self, offset: u64, size: u64) -> Result<Part<'_>, ModelError> {
        let sought = self.content.seek(SeekFrom::Start(offset));
        sought.map_err(ModelError::io(&self.path))?;
        Ok(Part {
            content: &mut self.content,
            left: size,
            failure: None,
        })
    }

    /// Reads the whole of a file that git stores.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] if it has other bytes than before; [`ModelError::Io`].
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, ModelError> {
        let (size, mut bytes) = (self.size, Vec::new());
        let mut part = self.part(0, size)?;
        let (read, failure) = (part.read_to_end(&mut bytes), part.failure.take());
        if let Some(failure) = failure {
            return Err(self.failed(failure));
        }
        read.map_err(ModelError::io(&self.path))?;
        let hash = digits(git_object(size).chain_update(&bytes));
        if self.git.as_ref() == Some(&hash) {
            Ok(bytes)
        } else {
            Err(self.changed())
        }
    }

    /// Builds the error for a [`Part`] that could not be read.
    pub(super) fn failed(&self, failure: io::Error) -> ModelError {
        match failure.kind() {
            ErrorKind::UnexpectedEof => self.changed(),
            _ => ModelError::io(&self.path)(failure),
        }
    }

    fn changed(&self) -> ModelError {
        let message = "changed while it was uploaded; try again once nothing writes to it";
        ModelError::malformed(&self.path, message)
    }
}

/// Reader of a part of a file, which ends with an error if the file has become shorter.
pub(super) struct Part<'f> {
    content: &'f mut Opened,
    left: u64,
    /// Error of the last reading.
    pub(super) failure: Option<io::Error>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let error = match self.content.read(&mut buffer[..most]) {
            Ok(0) => ErrorKind::UnexpectedEof.into(),
            Ok(read) => {
                self.left -= read as u64;
                return Ok(read);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => error,
        };
        let kind = error.kind();
        self.failure = Some(error);
        Err(kind.into())
    }
}

/// Starts the hash of an object of git.
fn git_object(size: u64) -> Sha1 {
    Sha1::new_with_prefix(format!("blob {size}\0"))
}

fn digits(hash: impl Digest) -> String {
    let hash = hash.finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes of the bytes written to it.
struct Hashes {
    sha256: Sha256,
    git: Option<Sha1>,
}

impl io::Write for Hashes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha256.update(bytes);
        if let Some(git) = &mut self.git {
            git.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    fn open(path: &std::path::Path, size: u64) -> Result<LocalFile, ModelError> {
        let file = Opened::File(File::open(path).unwrap());
        LocalFile::new("a".into(), path.into(), file, size)
    }

    #[test]
    fn a_file_has_the_names_of_git_and_of_its_storage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "hello\n").unwrap();
        let mut file = open(&path, 6).unwrap();
        // What `git hash-object` and `sha256sum` print.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(file.git.as_deref(), Some(git));
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(
            (file.sha256.as_str(), &*file.sample),
            (sha256, b"hello\n".as_slice())
        );
        assert_eq!(file.bytes().unwrap(), b"hello\n");
        let mut part = String::new();
        file.part(1, 3).unwrap().read_to_string(&mut part).unwrap();
        assert_eq!(part, "ell");
    }

    #[test]
    fn a_file_that_changes_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, vec![7; 5000]).unwrap();
        let is_changed = |error: ModelError| {
            let message = error.to_string();
            assert!(
                message.contains("changed while it was uploaded"),
                "{message}"
            );
        };
        is_changed(open(&path, 5001).unwrap_err());
        let mut file = open(&path, 5000).unwrap();
        fs::write(&path, vec![8; 5000]).unwrap();
        is_changed(file.bytes().unwrap_err());
        fs::write(&path, vec![7; 4000]).unwrap();
        is_changed(file.bytes().unwrap_err());
        let mut part = file.part(3000, 2000).unwrap();
        part.read_to_end(&mut Vec::new()).unwrap_err();
        let failure = part.failure.take().unwrap();
        is_changed(file.failed(failure));
        // One that grows is sent as it was.
        fs::write(&path, vec![7; 6000]).unwrap();
        assert_eq!(file.bytes().unwrap().len(), 5000);
    }

    #[test]
    fn a_pointer_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 7\n";
        fs::write(&path, pointer).unwrap();
        let message = open(&path, pointer.len() as u64).unwrap_err().to_string();
        assert!(message.contains("git lfs pull"), "{message}");
    }
}
