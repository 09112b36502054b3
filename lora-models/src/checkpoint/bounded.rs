//! Bounded reading of small files from untrusted sources: regular files only, and never more than a limit.

use crate::error::ModelError;
use lora_core::files::{self, DirectoryFile, note_read};
use serde::de::DeserializeOwned;
use std::io::Read;

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
/// [`ModelError::Io`] and [`ModelError::Malformed`] as for [`DirectoryFile::open`], also for a Git LFS pointer;
/// [`ModelError::TooLarge`] past the limit.
pub(crate) fn read_bounded(file: &DirectoryFile, limit: u64) -> Result<Vec<u8>, ModelError> {
    let path = file.path();
    let too_large = || ModelError::TooLarge {
        path: path.to_path_buf(),
        limit,
    };
    note_read(path);
    let (file, length) = file.open().map_err(ModelError::of_file)?;
    if length > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // One byte past the limit is requested, so that a file that grows meanwhile is refused and not truncated.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(ModelError::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    match files::lfs_pointer(&bytes) {
        Some(message) => Err(ModelError::malformed(path, message)),
        None => Ok(bytes),
    }
}

/// Reads a JSON file of at most `limit` bytes. A byte order mark, which editors on Windows write, is no part of it.
///
/// # Errors
/// The errors of [`read_bounded`], and [`ModelError::Json`] if the content does not parse as a `T`.
pub(crate) fn read_json<T: DeserializeOwned>(
    file: &DirectoryFile,
    limit: u64,
) -> Result<T, ModelError> {
    let bytes = read_bounded(file, limit)?;
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(json).map_err(|err| ModelError::json(file.path(), err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_past_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        std::fs::write(&path, b"[1, 2]").unwrap();
        let path = path.into();
        assert_eq!(read_json::<Vec<u8>>(&path, 6).unwrap(), [1, 2]);
        assert!(matches!(
            read_bounded(&path, 5),
            Err(ModelError::TooLarge { limit: 5, .. })
        ));
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            read_bounded(&dir.path().into(), 10),
            Err(ModelError::Malformed { .. })
        ));
        assert!(matches!(
            read_bounded(&"/dev/null".into(), 10),
            Err(ModelError::Malformed { .. })
        ));
        assert!(matches!(
            read_bounded(&dir.path().join("none").into(), 10),
            Err(ModelError::Io { .. })
        ));
    }
}
