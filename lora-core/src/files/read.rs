//! Bounded reads of small files, and a record of them for tests.

use crate::error::LoraError;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Reads a file of at most `limit` bytes. Of a larger one, no more than that is read.
///
/// # Errors
/// [`LoraError::Io`], or [`LoraError::Malformed`] if the file is larger, or a Git LFS pointer.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, LoraError> {
    note_read(path);
    let file = File::open(path).map_err(LoraError::io(path))?;
    read_at_most(path, file, limit)
}

/// Reads the content of a file of at most `limit` bytes; messages name `path`.
///
/// # Errors
/// As [`read_bounded`].
pub(super) fn read_at_most(
    path: &Path,
    content: impl Read,
    limit: u64,
) -> Result<Vec<u8>, LoraError> {
    let mut bytes = Vec::new();
    let read = content.take(limit + 1).read_to_end(&mut bytes);
    if read.map_err(LoraError::io(path))? as u64 > limit {
        let message = format!("is larger than {limit} bytes, which is more than it can need");
        return Err(LoraError::malformed(path, message));
    }
    match lfs_pointer(&bytes) {
        Some(message) => Err(LoraError::malformed(path, message)),
        None => Ok(bytes),
    }
}

/// Opens a regular file and returns it with its length in bytes.
///
/// The kind is checked before opening, because opening a pipe waits for a writer that may never come, and reading a
/// device may never end. Links are followed: the cache of the Hugging Face Hub consists of them.
///
/// # Errors
/// [`LoraError::Io`] if it cannot be opened, [`LoraError::Malformed`] if it is not a regular file.
pub fn open_regular(path: &Path) -> Result<(File, u64), LoraError> {
    let kind = fs::metadata(path).map_err(LoraError::io(path))?;
    if !kind.is_file() {
        return Err(LoraError::malformed(path, "is not a regular file"));
    }
    let file = File::open(path).map_err(LoraError::io(path))?;
    let length = file.metadata().map_err(LoraError::io(path))?.len();
    Ok((file, length))
}

/// Start of a Git LFS pointer, a small text in the place of a large file
/// (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>).
pub(crate) const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Message on a Git LFS pointer.
pub(crate) const LFS_MESSAGE: &str =
    "is a Git LFS pointer, not the file itself: get the file with `git lfs pull`";

/// Returns the message on a Git LFS pointer, by the first bytes of the file; `None` for any other file.
pub fn lfs_pointer(start: &[u8]) -> Option<&'static str> {
    start.starts_with(LFS_POINTER).then_some(LFS_MESSAGE)
}

thread_local! {
    /// Files read on this thread, while someone records them.
    static READS: RefCell<Option<Vec<PathBuf>>> = const { RefCell::new(None) };
}

/// Notes that a whole small file is read, for [`record_reads`].
#[doc(hidden)]
pub fn note_read(path: &Path) {
    READS.with_borrow_mut(|reads| {
        if let Some(reads) = reads {
            reads.push(path.into());
        }
    });
}

/// Runs `work` and returns with its result the small files that were read on this thread, one entry a reading: a test
/// can count how often a file is parsed.
#[doc(hidden)]
pub fn record_reads<T>(work: impl FnOnce() -> T) -> (T, Vec<PathBuf>) {
    READS.set(Some(Vec::new()));
    let result = work();
    (result, READS.take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vocab.txt");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 7\n";
        fs::write(&path, pointer).unwrap();
        let message = read_bounded(&path, 1000).unwrap_err().to_string();
        assert!(message.contains("git lfs pull"), "{message}");
        assert_eq!(lfs_pointer(b"version https://git-lfs.github"), None);
    }
}
