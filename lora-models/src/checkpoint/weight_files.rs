//! State of the files that a model was read from, to notice that they changed.

use crate::error::ModelError;
use lora_core::files::DirectoryFile;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files that a model was read from, in the state that they had then.
///
/// Weights that stay in the pages of a file change with it. What is computed with them afterwards belongs to no model, so that
/// a run [checks](Self::check) its base before it saves anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightFiles(Vec<(PathBuf, State)>);

/// Length, time of the last change and identity of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    length: u64,
    modified: Option<SystemTime>,
    /// Device and inode; `None` where there are none.
    identity: Option<[u64; 2]>,
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            identity: identity(metadata),
        }
    }

    /// Describes the difference from a later state.
    fn difference(&self, later: &Self) -> Option<String> {
        if self.length != later.length {
            return Some(format!(
                "it had {} bytes and has {}",
                self.length, later.length
            ));
        }
        if self.identity != later.identity {
            return Some("another file took its place".into());
        }
        (self.modified != later.modified).then(|| "it was written to".into())
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<[u64; 2]> {
    use std::os::unix::fs::MetadataExt;
    Some([metadata.dev(), metadata.ino()])
}

#[cfg(not(unix))]
fn identity(_metadata: &Metadata) -> Option<[u64; 2]> {
    None
}

impl WeightFiles {
    /// Notes the state of a file, before it is opened. A file in memory does not change.
    pub(super) fn note(&mut self, file: &DirectoryFile) -> Result<(), ModelError> {
        if file.is_in_memory() {
            return Ok(());
        }
        let path = file.path();
        let metadata = fs::metadata(path).map_err(ModelError::io(path))?;
        self.0.push((path.into(), State::of(&metadata)));
        Ok(())
    }

    /// Returns the files, without those in memory.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(path, _)| path.as_path())
    }

    /// Compares the files with their state when they were read. A file that is gone has not changed: what was opened stays as
    /// long as it is used.
    ///
    /// # Errors
    /// [`ModelError::Changed`] with the first file that has changed, or has been replaced by another.
    pub fn check(&self) -> Result<(), ModelError> {
        for (path, state) in &self.0 {
            let now = match fs::metadata(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => State::of(&found.map_err(ModelError::io(path))?),
            };
            if let Some(difference) = state.difference(&now) {
                let path = path.clone();
                return Err(ModelError::Changed { path, difference });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_that_changed_is_named_with_what_happened_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["model.safetensors", "other"].map(|name| dir.path().join(name));
        fs::write(&path, "weights").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        let set_time = |path: &Path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(long_ago).unwrap();
        };
        set_time(&path);
        let noted = || {
            let mut files = WeightFiles::default();
            files.note(&(&path).into()).unwrap();
            files
        };
        let difference = |files: &WeightFiles| match files.check() {
            Err(ModelError::Changed {
                path: found,
                difference,
            }) => {
                assert_eq!(found, path);
                difference
            }
            other => panic!("{other:?}"),
        };
        let files = noted();
        files.check().unwrap();

        // Copied over in place, with the same length and with another.
        fs::write(&path, "WEIGHTS").unwrap();
        assert_eq!(difference(&files), "it was written to");
        fs::write(&path, "").unwrap();
        assert_eq!(difference(&files), "it had 7 bytes and has 0");

        // Another file of the same length and time.
        fs::write(&path, "weights").unwrap();
        set_time(&path);
        let files = noted();
        fs::write(&other, "weights").unwrap();
        set_time(&other);
        fs::rename(&other, &path).unwrap();
        if cfg!(unix) {
            assert_eq!(difference(&files), "another file took its place");
        }

        let files = noted();
        fs::remove_file(&path).unwrap();
        files.check().unwrap();
    }
}
