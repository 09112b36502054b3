//! Atomic writes of files and directories, one writer to a directory, bounded reads, and searches for files that lie elsewhere.
//!
//! | file | contents |
//! | --- | --- |
//! | `read`, `search` | bounded reads; files that lie elsewhere |
//! | `companion` | files for a copy, which are never links to elsewhere |
//! | `directory` | directories to read from, of the file system or in memory |
//! | `temporary`, `names` | files before a write is complete, their names, and what killed processes left under them |
//! | `place` | links, devices, and directories that stay themselves |
//! | `exchange`, `in_place` | replacement of a directory, and of the content of one that stays itself |
//! | `lock`, `host` | lock on a directory, and the description of its holder |

mod companion;
mod directory;
mod exchange;
mod host;
mod in_place;
mod lock;
mod names;
mod place;
mod read;
mod search;
mod temporary;

pub use companion::{open_companion, read_companion};
pub use directory::{Directory, DirectoryFile, Opened};
pub use lock::DirLock;
pub(crate) use read::{LFS_MESSAGE, LFS_POINTER};
pub use read::{lfs_pointer, note_read, open_regular, read_bounded, record_reads};
pub use search::{directories_with, listed};
pub use temporary::remove_leftovers;

use crate::error::LoraError;
use place::{Place, followed, is_fixed};
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, PersistError};
use temporary::Replacement;

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
    /// Creates a temporary file for `path`, whose directory must exist. Where `path` is a link, the file is that of its target.
    ///
    /// # Errors
    /// [`LoraError::Io`].
    pub fn create(path: &Path) -> Result<Self, LoraError> {
        let path = followed(path).map_err(LoraError::io(path))?;
        let temporary = temporary::file_for(&path)?;
        Ok(Self { path, temporary })
    }

    /// Syncs the file to disk and renames it to its path.
    ///
    /// # Errors
    /// [`LoraError::Io`]; the file at the path is then unchanged.
    pub fn commit(self) -> Result<(), LoraError> {
        self.commit_open(Overwrite::Replace).map(drop)
    }

    /// Commits the file, and returns it open and locked, so that its writer can append to it. With [`Overwrite::Refuse`], a file
    /// that another process wrote meanwhile stays.
    ///
    /// # Errors
    /// [`LoraError::AlreadyExists`] if there is a file that may not be replaced; [`LoraError::Io`].
    pub fn commit_open(self, overwrite: Overwrite) -> Result<File, LoraError> {
        let Self { path, temporary } = self;
        let commit = || {
            sync(temporary.as_file())?;
            let file = match overwrite {
                Overwrite::Replace => temporary.persist(&path),
                Overwrite::Refuse => persist_new(temporary, &path),
            };
            let file = file.map_err(|error| error.error)?;
            sync_folder(&folder_of(&path));
            Ok(file)
        };
        commit().map_err(|error: std::io::Error| match error.kind() {
            ErrorKind::AlreadyExists => LoraError::AlreadyExists { path: path.clone() },
            _ => LoraError::io(&path)(error),
        })
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

/// Writes an [`AtomicFile`] and commits it. A device or a pipe at the path is written into.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if the file exists and may not be replaced; [`LoraError::Io`].
pub fn write_file(
    path: &Path,
    overwrite: Overwrite,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), LoraError> {
    if let Place::Stream(path) = Place::of(path).map_err(LoraError::io(path))? {
        let written = File::options().write(true).open(&path).and_then(|stream| {
            let mut writer = BufWriter::new(stream);
            write(&mut writer)?;
            writer.flush()
        });
        return written.map_err(LoraError::io(&path));
    }
    if overwrite == Overwrite::Refuse && path.exists() {
        return Err(LoraError::AlreadyExists { path: path.into() });
    }
    let mut writer = BufWriter::new(AtomicFile::create(path)?);
    write(&mut writer).map_err(LoraError::io(path))?;
    let file = writer.into_inner();
    let file = file.map_err(|error| LoraError::io(path)(error.into_error()))?;
    file.commit_open(overwrite).map(drop)
}

/// Creates the folder that a file is to be written to, if it does not exist.
///
/// # Errors
/// [`LoraError::Io`] if it cannot be created.
pub fn create_folder_of(path: &Path) -> Result<(), LoraError> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(LoraError::io(folder))
}

/// Renames a file to a path where there is none.
fn persist_new(temporary: NamedTempFile, path: &Path) -> Result<File, PersistError> {
    match temporary.persist_noclobber(path) {
        // A file system without links has no such rename.
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists && !path.exists() => {
            error.file.persist(path)
        }
        result => result,
    }
}

/// Writes a directory atomically: `fill` writes a temporary directory, which is then renamed.
///
/// A directory that is replaced changes places with the new one and is removed last, so that a crash leaves the old or the
/// new one complete. File systems without such an exchange take two renames; a kill between them leaves the old one under a
/// temporary name, from which the next writer in the folder puts it back. Of several writers without
/// [`Overwrite::Replace`], the first wins, and the others return an error.
///
/// The target of a link is written. A mount point and the directory that the process works in stay themselves, and
/// their content is replaced.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if the directory exists, is not empty and may not be replaced;
/// [`LoraError::Io`]; errors of `fill`.
pub fn write_dir<E: From<LoraError>>(
    path: &Path,
    overwrite: Overwrite,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let path = &followed(path).map_err(LoraError::io(path))?;
    check_occupied(path, overwrite)?;
    let folder = folder_of(path);
    fs::create_dir_all(&folder).map_err(LoraError::io(&folder))?;
    let temporary = Replacement::of(path)?;
    fill(&temporary.fresh())?;
    sync_folder(&temporary.fresh());
    exchange::put(temporary, path, overwrite)?;
    sync_folder(&folder);
    Ok(())
}

/// Checks that a directory can be written at `path` by [`write_dir`], before the work for its content is done.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if it exists, is not empty and may not be replaced; [`LoraError::Io`] if its folder cannot be
/// written.
pub fn check_dir(path: &Path, overwrite: Overwrite) -> Result<(), LoraError> {
    let path = &followed(path).map_err(LoraError::io(path))?;
    check_occupied(path, overwrite)?;
    if is_fixed(path) {
        return check_folder(&path.join("file"));
    }
    check_folder(path)
}

/// Checks that a file can be written at `path` by [`write_file`], before the work for its content is done.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if it exists and may not be replaced; [`LoraError::Io`] if it is a directory, or its folder is
/// missing or cannot be written.
pub fn check_file(path: &Path, overwrite: Overwrite) -> Result<(), LoraError> {
    let Place::Path(path) = &Place::of(path).map_err(LoraError::io(path))? else {
        return Ok(());
    };
    if overwrite == Overwrite::Refuse && path.exists() {
        return Err(LoraError::AlreadyExists { path: path.into() });
    }
    if path.is_dir() {
        return Err(LoraError::io(path)(ErrorKind::IsADirectory.into()));
    }
    if !folder_of(path).is_dir() {
        return Err(LoraError::io(folder_of(path))(ErrorKind::NotFound.into()));
    }
    check_folder(path)
}

fn check_occupied(path: &Path, overwrite: Overwrite) -> Result<(), LoraError> {
    if path.exists() && !path.is_dir() {
        return Err(LoraError::io(path)(ErrorKind::NotADirectory.into()));
    }
    let names = match in_place::content(path) {
        Ok(names) => names,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LoraError::io(path)(error)),
    };
    if !names.is_empty() && overwrite == Overwrite::Refuse {
        return Err(LoraError::AlreadyExists { path: path.into() });
    }
    if !in_place::is_replaceable(path, &names) && is_fixed(path) {
        let message =
            "has other files than those of a model or an adapter; give an empty directory";
        let error = std::io::Error::new(ErrorKind::DirectoryNotEmpty, message);
        return Err(LoraError::io(path)(error));
    }
    Ok(())
}

/// Writes a temporary file in the nearest folder around `path` that exists.
fn check_folder(path: &Path) -> Result<(), LoraError> {
    let mut folder = folder_of(path);
    while folder.symlink_metadata().is_err() {
        folder = folder_of(&folder);
    }
    match temporary::file_for(&folder.join("file")) {
        Err(LoraError::Io { source, .. }) => Err(LoraError::io(folder)(source)),
        result => result.map(drop),
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}

/// Writes the content of a file to the disk. A file system that cannot is no failure.
fn sync(file: &File) -> std::io::Result<()> {
    match file.sync_all() {
        Err(error) if is_unsupported(&error) => Ok(()),
        result => result,
    }
}

/// Writes the names in a folder to the disk. Many file systems cannot, and what was renamed is there all the same: only a power cut
/// may undo it.
fn sync_folder(folder: &Path) {
    // A directory cannot be opened as a file on Windows.
    if cfg!(unix) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Returns true if files in a folder, and their names, can be written to the disk at once, so that they survive a power cut. Many
/// network file systems and mounts of virtual machines cannot.
pub fn can_sync(folder: &Path) -> bool {
    let file = tempfile::tempfile_in(folder).and_then(|file| file.sync_all());
    let names = || File::open(folder).and_then(|folder| folder.sync_all());
    file.is_ok() && (cfg!(windows) || names().is_ok())
}

/// Returns true for the answers of systems and file systems that lack an operation.
fn is_unsupported(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unsupported | ErrorKind::InvalidInput
    )
}

/// Renames a file or directory. On Windows a scanner or an indexer may hold a new file for a moment.
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    const ATTEMPTS: u32 = 5;
    for attempt in 1.. {
        match fs::rename(from, to) {
            Err(error)
                if cfg!(windows)
                    && error.kind() == ErrorKind::PermissionDenied
                    && attempt < ATTEMPTS =>
            {
                std::thread::sleep(std::time::Duration::from_millis(10 << attempt));
            }
            result => return result,
        }
    }
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

    /// A second writer that looked before the first one was done.
    #[test]
    fn of_two_writers_at_once_the_first_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        let write = |text: &'static str| {
            move |dir: &Path| fs::write(dir.join("weights"), text).map_err(LoraError::io(dir))
        };
        let second = write_dir(&path, Overwrite::Refuse, |fresh| {
            write_dir(&path, Overwrite::Refuse, write("first"))?;
            write("second")(fresh)
        });
        assert!(matches!(second, Err(LoraError::AlreadyExists { .. })));
        assert_eq!(fs::read(path.join("weights")).unwrap(), b"first");

        let path = dir.path().join("file");
        let second = write_file(&path, Overwrite::Refuse, |file| {
            fs::write(&path, "first")?;
            file.write_all(b"second")
        });
        assert!(matches!(second, Err(LoraError::AlreadyExists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_output_is_checked_before_the_work_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, new) = (dir.path().join("file"), dir.path().join("a/b/new"));
        fs::write(&file, "old").unwrap();
        check_dir(&new, Overwrite::Refuse).unwrap();
        check_file(&file, Overwrite::Replace).unwrap();
        for refused in [
            check_file(&file, Overwrite::Refuse),
            check_dir(dir.path(), Overwrite::Refuse),
        ] {
            assert!(matches!(refused, Err(LoraError::AlreadyExists { .. })));
        }
        for refused in [
            check_file(dir.path(), Overwrite::Replace),
            check_file(&new, Overwrite::Refuse),
            // A file is no folder.
            check_dir(&file.join("new"), Overwrite::Refuse),
        ] {
            assert!(matches!(refused, Err(LoraError::Io { .. })), "{refused:?}");
        }
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
