//! Atomic writes of files and directories, bounded reads, and searches for files that lie elsewhere.

use crate::error::LoraError;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Reads a file of at most `limit` bytes. Of a larger one, no more than that is read.
///
/// # Errors
/// [`LoraError::Io`], or [`LoraError::Malformed`] if the file is larger, or a Git LFS pointer.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, LoraError> {
    note_read(path);
    let file = File::open(path).map_err(LoraError::io(path))?;
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
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

/// Most entries of a directory that are searched.
const MAX_ENTRIES: usize = 1024;

/// Returns the directories below `dir`, at most two levels deep, that hold a file of this name, sorted. A directory that has
/// it is not searched further. Directories that cannot be read count as empty.
pub fn directories_with(dir: &Path, file: &str) -> Vec<PathBuf> {
    fn search(dir: &Path, file: &str, levels: usize, found: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(dir).into_iter().flatten().take(MAX_ENTRIES);
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.join(file).is_file() {
                found.push(path);
            } else if levels > 1 && path.is_dir() {
                search(&path, file, levels - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    search(dir, file, 2, &mut found);
    found.sort();
    found
}

/// Lists paths for a message, the first few by name.
pub fn listed(paths: &[PathBuf]) -> String {
    const SHOWN: usize = 4;
    let shown = paths.iter().take(SHOWN);
    let shown = shown.map(|path| path.display().to_string());
    let mut text = shown.collect::<Vec<_>>().join(" or ");
    if paths.len() > SHOWN {
        text.push_str(&format!(" or one of {} more", paths.len() - SHOWN));
    }
    text
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

/// Treatment of an existing file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Return an error.
    Refuse,
    /// Replace it, once the new one is complete.
    Replace,
}

impl From<bool> for Overwrite {
    /// Replaces if `overwrite` is true.
    fn from(overwrite: bool) -> Self {
        if overwrite {
            Self::Replace
        } else {
            Self::Refuse
        }
    }
}

/// A file that is written under a temporary name and renamed by [`commit`](Self::commit).
///
/// Readers see the old content or the new, never a part of it. Without a commit, dropping it deletes the temporary file.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    temporary: NamedTempFile,
}

impl AtomicFile {
    /// Creates a temporary file for `path`, whose directory must exist.
    ///
    /// # Errors
    /// [`LoraError::Io`].
    pub fn create(path: &Path) -> Result<Self, LoraError> {
        let temporary = tempfile::Builder::new()
            .prefix(".lora-")
            .tempfile_in(folder_of(path))
            .map_err(LoraError::io(path))?;
        Ok(Self {
            path: path.into(),
            temporary,
        })
    }

    /// Syncs the file to disk and renames it to its path.
    ///
    /// # Errors
    /// [`LoraError::Io`]; the file at the path is then unchanged.
    pub fn commit(self) -> Result<(), LoraError> {
        let Self { path, temporary } = self;
        let commit = || {
            temporary.as_file().sync_all()?;
            // A temporary file is private to its owner; the result has the usual mode.
            set_default_mode(temporary.as_file())?;
            temporary.persist(&path).map_err(|error| error.error)?;
            sync_folder(&folder_of(&path))
        };
        commit().map_err(LoraError::io(&path))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.temporary.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.temporary.flush()
    }
}

/// Writes an [`AtomicFile`] and commits it.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if the file exists and may not be replaced; [`LoraError::Io`].
pub fn write_file(
    path: &Path,
    overwrite: Overwrite,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), LoraError> {
    if overwrite == Overwrite::Refuse && path.exists() {
        return Err(LoraError::AlreadyExists { path: path.into() });
    }
    let mut writer = BufWriter::new(AtomicFile::create(path)?);
    write(&mut writer).map_err(LoraError::io(path))?;
    let file = writer.into_inner();
    let file = file.map_err(|error| LoraError::io(path)(error.into_error()))?;
    file.commit()
}

/// Writes a directory atomically: `fill` writes a temporary directory, which is then renamed.
///
/// A directory that is replaced is first moved aside and removed last, so that a crash leaves
/// the old or the new one complete.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if the directory exists, is not empty and may not be replaced;
/// [`LoraError::Io`]; errors of `fill`.
pub fn write_dir<E: From<LoraError>>(
    path: &Path,
    overwrite: Overwrite,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let occupied = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.exists(),
    };
    if occupied && overwrite == Overwrite::Refuse {
        return Err(LoraError::AlreadyExists { path: path.into() }.into());
    }
    let folder = folder_of(path);
    fs::create_dir_all(&folder).map_err(LoraError::io(&folder))?;
    let temporary = tempfile::Builder::new()
        .prefix(".lora-")
        .tempdir_in(&folder)
        .map_err(LoraError::io(&folder))?;
    let fresh = temporary.path().join("new");
    fs::create_dir(&fresh).map_err(LoraError::io(&fresh))?;
    fill(&fresh)?;
    let replace = || {
        sync_folder(&fresh)?;
        if path.exists() {
            fs::rename(path, temporary.path().join("old"))?;
        }
        fs::rename(&fresh, path)?;
        sync_folder(&folder)
    };
    replace().map_err(LoraError::io(path))?;
    Ok(())
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(()) // A directory cannot be opened as a file there.
}

#[cfg(unix)]
fn set_default_mode(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_default_mode(_file: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_file(&path, Overwrite::Refuse, |w| w.write_all(b"old")).unwrap();
        let failed = write_file(&path, Overwrite::Replace, |w| {
            w.write_all(b"half")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(matches!(failed, Err(LoraError::Io { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

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

    #[test]
    fn files_are_found_up_to_two_levels_deeper() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["b", "a/x", "c/d/e"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("config.json"), "{}").unwrap();
        }
        let found = directories_with(dir.path(), "config.json");
        assert_eq!(found, [dir.path().join("a/x"), dir.path().join("b")]);
        assert!(directories_with(&dir.path().join("none"), "config.json").is_empty());
    }

    #[test]
    fn the_old_content_stays_until_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        drop(AtomicFile::create(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_is_overwritten_without_being_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        let fill = |text: &'static str| {
            move |dir: &Path| fs::write(dir.join("weights"), text).map_err(LoraError::io(dir))
        };
        write_dir(&path, Overwrite::Refuse, fill("one")).unwrap();
        assert!(matches!(
            write_dir(&path, Overwrite::Refuse, fill("two")),
            Err(LoraError::AlreadyExists { .. })
        ));
        assert_eq!(fs::read(path.join("weights")).unwrap(), b"one");
        write_dir(&path, Overwrite::Replace, fill("two")).unwrap();
        assert_eq!(fs::read(path.join("weights")).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_fails_to_fill_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        let failed: Result<(), LoraError> = write_dir(&path, Overwrite::Refuse, |_| {
            Err(LoraError::NotAttached { module: "x".into() })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
