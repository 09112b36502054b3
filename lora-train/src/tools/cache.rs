//! Kernels that GPU backends keep between processes.

use super::text::rows;
use crate::TrainError;
use clap::Args;
use lora_core::ops::kernel_cache;
use serde::Serialize;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Options of `lora cache`.
#[derive(Args, Clone, Debug, Default)]
pub struct CacheOptions {
    /// Remove the kernels; they are compiled again when they are needed.
    #[arg(long)]
    pub clear: bool,
    /// Print the outcome as one JSON object on the last line: `path`, `bytes` and `removed`.
    #[arg(long)]
    pub json: bool,
}

/// Kernels that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KernelCache {
    /// Database of the kernels; `None` if no GPU backend is compiled in.
    pub path: Option<PathBuf>,
    /// Size of the database with its logs, in bytes.
    pub bytes: u64,
    /// True if they were removed.
    pub removed: bool,
}

/// Finds the kernels that are kept, and removes them if the options say so.
///
/// # Errors
/// If a file cannot be read or removed, or the file in that place is not a database of kernels.
pub fn cache(options: &CacheOptions) -> Result<KernelCache, TrainError> {
    match kernel_cache() {
        Some(path) => cache_at(path, options.clear),
        None => Ok(KernelCache::default()),
    }
}

fn cache_at(path: PathBuf, clear: bool) -> Result<KernelCache, TrainError> {
    let files = files(&path)?;
    let removed = clear && !files.is_empty();
    if removed {
        check(&path, &files)?;
        for (file, _) in &files {
            fs::remove_file(file).map_err(TrainError::io(file))?;
        }
    }
    Ok(KernelCache {
        path: Some(path),
        bytes: files.iter().map(|(_, bytes)| bytes).sum(),
        removed,
    })
}

/// Lists the database and the logs beside it, with their sizes in bytes.
fn files(path: &Path) -> Result<Vec<(PathBuf, u64)>, TrainError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    let name = name.to_string_lossy();
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(TrainError::io(dir)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(TrainError::io(dir))?;
        let found = entry.file_name();
        let rest = found.to_str().and_then(|found| found.strip_prefix(&*name));
        // SQLite's logs are named `NAME-wal` and the like.
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
            let metadata = entry.metadata().map_err(TrainError::io(entry.path()))?;
            files.push((entry.path(), metadata.len()));
        }
    }
    files.sort();
    Ok(files)
}

/// Bytes of a database in which its tables are described.
const DESCRIPTION: u64 = 1 << 20;
/// Start of a database of `SQLite`, and of its log.
const MAGIC: [&[u8]; 3] = [
    b"SQLite format 3\0",
    b"\x37\x7f\x06\x82",
    b"\x37\x7f\x06\x83",
];
/// Column of the table of kernels.
const COLUMN: &[u8] = b"namespace TEXT NOT NULL";

/// Refuses to remove anything other than regular files of a database with a table of kernels.
fn check(path: &Path, files: &[(PathBuf, u64)]) -> Result<(), TrainError> {
    let refuse = |file: &Path, what: &str| {
        let file = file.display();
        let message = format!("{file} is {what}, so that nothing was removed; look at it yourself");
        Err(TrainError::config("clear", message))
    };
    let mut described = false;
    for (file, _) in files {
        let metadata = fs::symlink_metadata(file).map_err(TrainError::io(file))?;
        if !metadata.is_file() {
            return refuse(file, "no regular file");
        }
        let mut start = Vec::new();
        File::open(file)
            .and_then(|opened| opened.take(DESCRIPTION).read_to_end(&mut start))
            .map_err(TrainError::io(file))?;
        let is_database = MAGIC.iter().any(|magic| start.starts_with(magic));
        let has_kernels = start.windows(COLUMN.len()).any(|bytes| bytes == COLUMN);
        described |= is_database && has_kernels;
    }
    if described {
        Ok(())
    } else {
        refuse(path, "no database of kernels")
    }
}

impl fmt::Display for KernelCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(path) = &self.path else {
            return writeln!(
                f,
                "this build has no GPU backend, so that no kernels are kept; one is built with a feature such as \
                 `vulkan`, `metal` or `cuda`"
            );
        };
        let size = match (self.bytes, self.removed) {
            (0, _) => "nothing is kept".to_string(),
            (bytes, false) => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
            (bytes, true) => format!("{:.1} MiB removed", bytes as f64 / f64::from(1 << 20)),
        };
        let table = [
            ("kernels", Some(path.display().to_string())),
            ("size", Some(size)),
        ];
        rows(f, 8, table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(path: &Path) {
        let mut bytes = b"SQLite format 3\0".to_vec();
        bytes.resize(4000, 7);
        bytes.extend_from_slice(b"CREATE TABLE entries (\n namespace TEXT NOT NULL,\n key BLOB");
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_size_is_that_of_the_database_with_its_logs_and_clearing_removes_these_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("default.db");
        let shown = |clear| cache_at(path.clone(), clear).unwrap().to_string();
        assert!(shown(true).contains("nothing is kept"), "{}", shown(true));
        database(&path);
        fs::write(dir.path().join("default.db-wal"), vec![1; 1 << 20]).unwrap();
        fs::write(dir.path().join("default.db.backup"), "other").unwrap();
        fs::write(dir.path().join("other.db"), "other").unwrap();
        assert!(shown(false).contains("1.0 MiB"), "{}", shown(false));
        assert!(path.exists());
        let found = cache_at(path.clone(), true).unwrap();
        assert!(found.removed && found.bytes > 1 << 20, "{found:?}");
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!((left, path.exists()), (2, false));
    }

    #[test]
    fn a_log_whose_database_is_still_empty_is_a_cache_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("default.db");
        fs::write(&path, "").unwrap();
        let mut log = b"\x37\x7f\x06\x82".to_vec();
        log.extend_from_slice(COLUMN);
        fs::write(dir.path().join("default.db-wal"), log).unwrap();
        assert!(cache_at(path.clone(), true).unwrap().removed);
        assert!(!path.exists());
    }

    #[test]
    fn another_file_in_that_place_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("default.db");
        for bytes in [b"my notes".as_slice(), b"SQLite format 3\0 and my tables"] {
            fs::write(&path, bytes).unwrap();
            let error = cache_at(path.clone(), true).unwrap_err().to_string();
            assert!(error.contains("no database of kernels"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = cache_at(path.clone(), true).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
        assert!(path.is_dir());
    }
}
