//! Places of outputs: links are followed, devices and pipes told apart, and directories that cannot be renamed.

use super::folder_of;
use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Largest number of links to follow, as in Linux.
const MOST_LINKS: usize = 40;

/// Place that a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// File or directory, or nothing yet, at a path that is no link.
    Path(PathBuf),
    /// Device or pipe: it is written into, and stays what it is.
    Stream(PathBuf),
}

impl Place {
    /// Finds the place of a path.
    pub fn of(path: &Path) -> Result<Self> {
        let is_stream = fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
        // Where standard output is a file, replacing that would leave the shell with the old one.
        if is_stream || (cfg!(unix) && is_descriptor(path)) {
            return Ok(Self::Stream(path.into()));
        }
        followed(path).map(Self::Path)
    }
}

/// Returns true for the name of an open file, such as `/dev/stdout`. Other places below `/dev` are devices or, as in `/dev/shm`,
/// ordinary files.
fn is_descriptor(path: &Path) -> bool {
    let standard = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    let folder = path.parent().unwrap_or(path);
    standard.iter().any(|name| path == Path::new(name))
        || folder == Path::new("/dev/fd")
        || (path.starts_with("/proc") && folder.ends_with("fd"))
}

/// Follows the links of a path, also to a place where there is nothing yet.
pub(super) fn followed(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        if !path.is_symlink() {
            return Ok(path);
        }
        let target = fs::read_link(&path)?;
        path = folder_of(&path).join(target);
    }
    Err(Error::new(ErrorKind::InvalidInput, "too many links"))
}

/// Returns true for a directory whose content is replaced in place: it cannot be renamed because something is mounted on it, or
/// should not be because someone works in it, or because its folder cannot be written.
pub(super) fn is_fixed(dir: &Path) -> bool {
    let Ok(real) = dir.canonicalize() else {
        return false;
    };
    let Some(folder) = real.parent() else {
        return true;
    };
    let is_here = std::env::current_dir().is_ok_and(|here| here.starts_with(&real));
    is_here || is_mounted(&real, folder) || !is_writable(folder)
}

#[cfg(unix)]
fn is_mounted(dir: &Path, folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    device(dir) != device(folder) || is_bound(dir)
}

#[cfg(not(unix))]
fn is_mounted(_dir: &Path, _folder: &Path) -> bool {
    false
}

/// Returns true for a directory that another one of the same file system is mounted on, as a container's volume is.
#[cfg(unix)]
fn is_bound(dir: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| {
        let place = line.split(' ').nth(4);
        place.is_some_and(|place| unescaped(place).as_bytes() == dir.as_os_str().as_encoded_bytes())
    })
}

/// Undoes the escapes of spaces and the like in Linux's list of mounts.
#[cfg(unix)]
fn unescaped(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.into(), |text, (escape, plain)| {
        text.replace(escape, plain)
    })
}

/// Returns true if a file can be created in a folder.
fn is_writable(folder: &Path) -> bool {
    match tempfile::tempfile_in(folder) {
        Ok(_) => true,
        Err(error) => !matches!(
            error.kind(),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
        ),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_to_where_nothing_is_yet() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("far")).unwrap();
        symlink("far/new", at("one")).unwrap();
        symlink(at("one"), at("two")).unwrap();
        assert_eq!(followed(&at("two")).unwrap(), at("far/new"));
        symlink(at("loop"), at("loop")).unwrap();
        assert!(followed(&at("loop")).is_err());
    }

    #[test]
    fn devices_are_streams_and_files_are_not() {
        for device in ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            let place = Place::of(Path::new(device)).unwrap();
            assert_eq!(place, Place::Stream(device.into()));
        }
        let dir = tempfile::tempdir().unwrap();
        let place = Place::of(dir.path()).unwrap();
        assert_eq!(place, Place::Path(dir.path().into()));
        // Memory of the machine, with ordinary files. Written into, an old file would keep its end, and a new one would not come.
        let shared = Path::new("/dev/shm/none-of-these/file");
        assert_eq!(Place::of(shared).unwrap(), Place::Path(shared.into()));
    }

    #[test]
    fn only_directories_that_cannot_be_renamed_are_fixed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_fixed(dir.path()));
        assert!(!is_fixed(&dir.path().join("none")));
        assert!(is_fixed(Path::new("/")) && is_fixed(Path::new(".")));
        assert_eq!(unescaped("/a\\040b"), "/a b");
    }
}
