//! A file that is there whole or not at all.

use crate::error::ModelError;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file written beside its destination, and renamed over it by [`commit`](Self::commit).
///
/// Whoever reads the destination sees the old content or the new, never a part, even when the machine loses power in
/// between. Dropped without a commit, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    destination: PathBuf,
    temporary: PathBuf,
    file: File,
    committed: bool,
}

impl AtomicFile {
    /// Begins a file that is to replace `destination`. Its directory must exist.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`] where nothing can be created there.
    pub(crate) fn create(destination: &Path) -> Result<Self, ModelError> {
        // The process and a counter keep writers of the same destination apart, in and between programs.
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let serial = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = destination.file_name().ok_or_else(|| ModelError::Export {
            path: destination.to_path_buf(),
            message: "the path does not end with a file name".to_string(),
        })?;
        let temporary = destination.with_file_name(format!(
            ".{}.{}-{serial}.tmp",
            name.to_string_lossy(),
            std::process::id()
        ));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(ModelError::io(&temporary))?;
        Ok(Self {
            destination: destination.to_path_buf(),
            temporary,
            file,
            committed: false,
        })
    }

    /// Writes `bytes` to a new file at `destination`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`].
    pub(crate) fn write_whole(destination: &Path, bytes: &[u8]) -> Result<(), ModelError> {
        let mut file = Self::create(destination)?;
        file.write_all(bytes).map_err(ModelError::io(destination))?;
        file.commit()
    }

    /// Puts the file in its place, on the disk and not only in memory.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`]; the destination is then as it was.
    pub(crate) fn commit(mut self) -> Result<(), ModelError> {
        self.file
            .sync_all()
            .map_err(ModelError::io(&self.temporary))?;
        std::fs::rename(&self.temporary, &self.destination)
            .map_err(ModelError::io(&self.destination))?;
        self.committed = true;
        sync_directory_of(&self.destination)
    }
}

/// Without this the rename itself may be lost with the power, on Unix.
fn sync_directory_of(path: &Path) -> Result<(), ModelError> {
    if cfg!(unix) {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(ModelError::io(parent))?;
    }
    Ok(())
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nobody is left to tell if it cannot be removed.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_old_content_stays_until_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        AtomicFile::write_whole(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn an_abandoned_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(&dir.path().join("a")).unwrap();
        file.write_all(b"part").unwrap();
        drop(file);
        assert!(names(dir.path()).is_empty());
    }
}
