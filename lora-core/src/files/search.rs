//! Searches for files that lie elsewhere than expected, for messages.

use std::fs;
use std::path::{Path, PathBuf};

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
