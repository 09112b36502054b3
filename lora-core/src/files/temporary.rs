//! Files and directories that are written under temporary names, before they get their own.
//!
//! The writer holds an advisory lock as long as it lives. What a killed process left behind has none, and the next writer in
//! the same folder removes it, or puts back what was about to be replaced.

use super::names::{LOCK, NEW, OLD, RANDOM, SUFFIX, is_temporary, own_prefix};
use super::place::is_fixed;
use super::{folder_of, in_place};
use crate::error::LoraError;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tempfile::{Builder, NamedTempFile, TempDir};

/// Age above which files of another host count as left behind. Locks of some network file systems hold on one host only.
const FOREIGN_AGE: Duration = Duration::from_hours(24);

/// Number of attempts to lock a new file or directory before a process that tidies up removes it.
const ATTEMPTS: usize = 8;

/// Creates a locked temporary file for `path`, in the same folder.
pub(super) fn file_for(path: &Path) -> Result<NamedTempFile, LoraError> {
    let folder = folder_of(path);
    remove_leftovers(&folder);
    let prefix = own_prefix();
    for _ in 0..ATTEMPTS {
        let mut builder = Builder::new();
        builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(MODE));
        let file = builder.tempfile_in(&folder).map_err(LoraError::io(path))?;
        if is_held(file.as_file(), file.path()) {
            return Ok(file);
        }
    }
    Err(contended(path))
}

/// Name in the lock of a temporary directory that lies in the directory whose content it replaces.
const ITSELF: &str = ".";

/// Mode of new files, before the umask of the process.
#[cfg(unix)]
const MODE: u32 = 0o666;

/// Temporary directory that becomes another one, or whose content becomes that of the directory around it.
pub(super) struct Replacement {
    folder: TempDir,
    /// Directory whose content is replaced in place.
    within: Option<PathBuf>,
    is_kept: bool,
    _lock: File,
}

impl Drop for Replacement {
    /// Removes the content before the lock, so that the next writer removes what a kill leaves of it.
    fn drop(&mut self) {
        if !self.is_kept {
            remove_content(self.folder.path());
        }
    }
}

impl Replacement {
    /// Creates a locked temporary directory for `path`: in the same folder, or within a directory that stays itself.
    pub fn of(path: &Path) -> Result<Self, LoraError> {
        let within = is_fixed(path).then(|| path.to_path_buf());
        let folder = within.clone().unwrap_or_else(|| folder_of(path));
        let name = match &within {
            Some(_) => OsStr::new(ITSELF),
            None => path.file_name().unwrap_or_default(),
        };
        remove_leftovers(&folder);
        let prefix = own_prefix();
        for _ in 0..ATTEMPTS {
            let mut builder = Builder::new();
            builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM);
            let temporary = builder
                .tempdir_in(&folder)
                .map_err(LoraError::io(&folder))?;
            match locked_for(temporary.path(), name) {
                Ok(Some(lock)) => {
                    let fresh = temporary.path().join(NEW);
                    fs::create_dir(&fresh).map_err(LoraError::io(&fresh))?;
                    return Ok(Self {
                        folder: temporary,
                        within,
                        is_kept: false,
                        _lock: lock,
                    });
                }
                Ok(None) => {}
                Err(error) => return Err(LoraError::io(temporary.path())(error)),
            }
        }
        Err(contended(path))
    }

    /// Returns the directory to fill.
    pub fn fresh(&self) -> PathBuf {
        self.folder.path().join(NEW)
    }

    /// Returns the place of the directory that is replaced, where two directories cannot be exchanged at once.
    pub fn aside(&self) -> PathBuf {
        self.folder.path().join(OLD)
    }

    /// Replaces the content of a directory that stays itself; `None` for another one.
    pub fn put_within(&self) -> Option<Result<(), (std::io::Error, bool)>> {
        let dir = self.within.as_ref()?;
        Some(in_place::put(self.folder.path(), dir))
    }

    /// Keeps the temporary directory.
    pub fn keep(mut self) -> PathBuf {
        self.is_kept = true;
        self.folder.disable_cleanup(true);
        self.folder.path().into()
    }
}

/// Creates the lock of a temporary directory; `None` if another process removes the directory.
fn locked_for(folder: &Path, name: &OsStr) -> std::io::Result<Option<File>> {
    let lock = folder.join(LOCK);
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&lock) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !is_held(&file, &lock) {
        return Ok(None);
    }
    file.write_all(name.as_encoded_bytes())?;
    Ok(Some(file))
}

/// Locks a new file. Returns false if another process was faster, and removes it. Without support for locks, nothing is ever
/// removed.
fn is_held(file: &File, path: &Path) -> bool {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => false,
        // It may have been removed before it was locked.
        Ok(()) => path.exists(),
        Err(TryLockError::Error(_)) => true,
    }
}

fn contended(path: &Path) -> LoraError {
    let message = "another process removes its temporary files";
    LoraError::io(path)(std::io::Error::new(ErrorKind::ResourceBusy, message))
}

/// Removes the files and directories that killed processes left in `folder`, and puts back a directory that one of them was
/// about to replace. Those of living processes stay.
///
/// Nothing depends on the result: what cannot be removed stays.
pub fn remove_leftovers(folder: &Path) {
    let own = own_prefix();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !is_temporary(&name) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let is_own = name.to_str().is_some_and(|name| name.starts_with(&own));
        let modified = metadata.modified().ok();
        let age = modified.and_then(|modified| modified.elapsed().ok());
        if !is_own && age.is_none_or(|age| age < FOREIGN_AGE) {
            continue;
        }
        let path = entry.path();
        if metadata.is_dir() {
            remove_directory(&path);
        } else if metadata.is_file()
            && let Some(_lock) = unused(&path)
        {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Removes a temporary directory that no process uses.
fn remove_directory(path: &Path) {
    let lock = path.join(LOCK);
    let Some(mut held) = unused(&lock) else {
        // Without a lock it is empty: its process was killed, or is about to lock it and then makes another one.
        let _ = fs::remove_dir(path);
        return;
    };
    let old = path.join(OLD);
    let mut name = String::new();
    let read = (&mut held).take(1 << 12).read_to_string(&mut name);
    if name == ITSELF {
        if in_place::restore(path, &folder_of(path)).is_err() {
            return;
        }
    } else if old.exists() {
        let mut parts = Path::new(&name).components();
        let plain = matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        );
        if read.is_err() || !plain {
            return;
        }
        let place = folder_of(path).join(&name);
        let missing = place.symlink_metadata().is_err();
        if missing && fs::rename(&old, &place).is_err() {
            return;
        }
    }
    // The lock goes last: a directory without one is not removed with its content.
    if remove_content(path) && fs::remove_file(&lock).is_ok() {
        let _ = fs::remove_dir(path);
    }
}

/// Removes all of a temporary directory but its lock. Returns true if nothing else is left.
fn remove_content(path: &Path) -> bool {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut others = entries.filter(|entry| entry.file_name() != LOCK);
    others.all(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()).is_ok(),
        _ => fs::remove_file(entry.path()).is_ok(),
    })
}

/// Opens and locks a file that no process uses.
fn unused(path: &Path) -> Option<File> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::super::names::prefix_of;
    use super::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    /// Leaves a temporary directory as a kill does: on the disk, and unlocked.
    fn killed(replacement: Replacement) -> PathBuf {
        replacement.keep()
    }

    #[test]
    fn what_a_living_writer_has_not_finished_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_for(&dir.path().join("a")).unwrap();
        let replacement = Replacement::of(&dir.path().join("b")).unwrap();
        remove_leftovers(dir.path());
        assert!(file.path().exists() && replacement.fresh().exists());
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_for(&dir.path().join("a")).unwrap();
        let half = Replacement::of(&dir.path().join("b")).unwrap();
        fs::write(half.fresh().join("weights"), "half").unwrap();
        // The content of a directory may be written by way of another one.
        let within = Replacement::of(&half.fresh()).unwrap();
        drop(file.keep().unwrap());
        killed(within);
        killed(half);
        // Killed before its lock was there.
        fs::create_dir(dir.path().join(format!("{}aaaaaa{SUFFIX}", own_prefix()))).unwrap();
        assert_eq!(entries(dir.path()), 3);
        drop(file_for(&dir.path().join("c")).unwrap());
        assert_eq!(entries(dir.path()), 0);
    }

    #[test]
    fn a_directory_that_was_moved_aside_and_not_yet_replaced_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("adapter");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("weights"), "old").unwrap();
        let replacement = Replacement::of(&place).unwrap();
        fs::rename(&place, replacement.aside()).unwrap();
        killed(replacement);
        remove_leftovers(dir.path());
        assert_eq!(fs::read(place.join("weights")).unwrap(), b"old");
        assert_eq!(entries(dir.path()), 1);
    }

    /// The first digits of `printf node-1 | sha256sum`: with a hash of the standard library, a program of another compiler
    /// would not know the files of this one.
    #[test]
    fn the_mark_of_a_host_does_not_depend_on_the_compiler() {
        assert_eq!(prefix_of("node-1"), ".lora-35971be6-");
    }

    #[test]
    fn files_with_other_names_and_new_ones_of_other_hosts_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            ".lora-config.tmp",
            ".lora-notes",
            ".lora-0123456g-aaaaaa.tmp",
            ".lora-01234567-aaaaaa.tmp",
        ] {
            fs::write(dir.path().join(name), "mine").unwrap();
        }
        remove_leftovers(dir.path());
        assert_eq!(entries(dir.path()), 4);
    }
}
