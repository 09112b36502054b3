//! Replacement of a directory by a complete one.

use super::temporary::Replacement;
use super::{Overwrite, is_unsupported, rename};
use crate::error::LoraError;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

/// Puts a filled directory at its place. The directory that was there is removed.
pub(super) fn put(
    temporary: Replacement,
    path: &Path,
    overwrite: Overwrite,
) -> std::result::Result<(), LoraError> {
    match temporary.put_within() {
        None => {}
        Some(Ok(())) => return Ok(()),
        Some(Err((error, true))) => return Err(LoraError::io(path)(error)),
        Some(Err((error, false))) => return Err(kept(temporary, path, error)),
    }
    let fresh = temporary.fresh();
    if overwrite == Overwrite::Refuse {
        // The system refuses to rename to a directory with content.
        return rename(&fresh, path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => {
                LoraError::AlreadyExists { path: path.into() }
            }
            _ => LoraError::io(path)(error),
        });
    }
    if path.symlink_metadata().is_err() {
        return rename(&fresh, path).map_err(LoraError::io(path));
    }
    match exchange(&fresh, path) {
        Ok(()) => return Ok(()),
        Err(error) if is_unsupported(&error) => {}
        Err(error) => return Err(LoraError::io(path)(error)),
    }
    let aside = temporary.aside();
    rename(path, &aside).map_err(LoraError::io(path))?;
    let Err(error) = rename(&fresh, path) else {
        return Ok(());
    };
    if rename(&aside, path).is_ok() {
        return Err(LoraError::io(path)(error));
    }
    Err(kept(temporary, path, error))
}

/// Keeps the temporary directory with what was replaced, and names it in the error.
fn kept(temporary: Replacement, path: &Path, error: Error) -> LoraError {
    let message = format!(
        "{error}; what was there is in {}",
        temporary.keep().display()
    );
    LoraError::io(path)(Error::new(error.kind(), message))
}

/// Exchanges two directories in one step.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn exchange(one: &Path, other: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn exchange(_one: &Path, _other: &Path) -> Result<()> {
    Err(ErrorKind::Unsupported.into())
}
