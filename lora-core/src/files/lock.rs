//! One writer to a directory: [`DirLock`].

use super::host::{host_name, utc};
use super::read_bounded;
use crate::error::LoraError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Name of the locked file.
const LOCK_FILE: &str = ".lock";

/// Largest description of a holder in bytes.
const HOLDER_LIMIT: u64 = 1 << 10;

/// Advisory lock on a directory, held by one process at a time.
///
/// It is a lock of the operating system on the file `.lock`, which says who holds it: a crash or a kill releases it. The file
/// is removed with the lock.
#[derive(Debug)]
pub struct DirLock {
    path: PathBuf,
    /// `None` on a file system without locks.
    file: Option<File>,
}

impl DirLock {
    /// Locks a directory, which must exist.
    ///
    /// # Errors
    /// [`LoraError::InUse`], with the holder, if another process has the lock; [`LoraError::Io`] if the directory cannot be
    /// written.
    pub fn acquire(dir: &Path) -> Result<Self, LoraError> {
        let path = dir.join(LOCK_FILE);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = options.open(&path).map_err(LoraError::io(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(LoraError::InUse {
                        path: dir.into(),
                        holder: holder(&path),
                    });
                }
                Err(TryLockError::Error(_)) => return Ok(Self { path, file: None }),
            }
            // The holder before may have removed the file after it was opened here.
            if !is_at(&file, &path) {
                continue;
            }
            let written = file
                .set_len(0)
                .and_then(|()| file.write_all(own().as_bytes()));
            // Dropped with the error, the lock removes its file.
            let lock = Self {
                path,
                file: Some(file),
            };
            return match written {
                Ok(()) => Ok(lock),
                Err(error) => Err(LoraError::io(&lock.path)(error)),
            };
        }
    }

    /// Returns false on a file system without locks, where another process may write too.
    pub fn is_exclusive(&self) -> bool {
        self.file.is_some()
    }
}

impl Drop for DirLock {
    /// Removes the file while it is locked.
    fn drop(&mut self) {
        if cfg!(unix) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Describes this process.
fn own() -> String {
    let (id, host) = (std::process::id(), host_name());
    let host = if host.is_empty() {
        "this machine"
    } else {
        &host
    };
    format!("process {id} on {host}, since {}\n", utc(SystemTime::now()))
}

/// Reads the description of the process that holds the lock.
fn holder(path: &Path) -> String {
    let text = read_bounded(path, HOLDER_LIMIT).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    match text.lines().next() {
        None | Some("") => "another process".into(),
        Some(line) => line.escape_debug().to_string(),
    }
}

/// Returns true if `path` is the place of the opened file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (opened, found) = (file.metadata().map(place), path.metadata().map(place));
    matches!((opened, found), (Ok(opened), Ok(found)) if opened == found)
}

/// The file is not removed there, since others have it open.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::acquire(dir.path()).unwrap();
        assert!(first.is_exclusive());
        let error = DirLock::acquire(dir.path()).unwrap_err();
        let LoraError::InUse { path, holder } = &error else {
            panic!("{error}");
        };
        assert_eq!(path, dir.path());
        let id = format!("process {} on ", std::process::id());
        assert!(
            holder.starts_with(&id) && holder.ends_with(" UTC"),
            "{holder}"
        );
        drop(first);
        drop(DirLock::acquire(dir.path()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    /// Many threads take turns. A lock on a file that was removed in between would let in two of them.
    #[test]
    fn there_is_one_writer_at_a_time() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let dir = tempfile::tempdir().unwrap();
        let [inside, entered, refused] = [const { AtomicUsize::new(0) }; 3];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = loop {
                            match DirLock::acquire(dir.path()) {
                                Ok(lock) => break lock,
                                Err(_) => refused.fetch_add(1, SeqCst),
                            };
                            std::thread::yield_now();
                        };
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        entered.fetch_add(1, SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(entered.load(SeqCst), 4 * 50);
        assert!(refused.load(SeqCst) > 0, "they never met");
    }

    #[test]
    fn a_lock_file_that_a_killed_process_left_locks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        std::fs::write(&path, "process 1 on elsewhere, since long ago\nand more").unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let id = format!("process {} on ", std::process::id());
        assert!(text.starts_with(&id) && text.lines().count() == 1, "{text}");
        drop(lock);
    }
}
