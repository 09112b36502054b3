//! Replacement of a directory's content, for a directory that stays itself: a mount point, or the one that somebody is in.
//!
//! The new content is complete in a temporary directory within before anything is moved. The old entries go to `old/` there one
//! by one; when the last has gone, `old/` becomes `whole/`, and the new entries take their places. Whatever a kill leaves, these
//! names tell how far the writer came, and the next writer puts the old content back.

use super::names::{LOCK, NEW, OLD, is_temporary};
use super::rename;
use std::ffi::OsString;
use std::fs;
use std::io::{Error, Result};
use std::path::Path;

/// Directory with all of the replaced content.
const WHOLE: &str = "whole";

/// Entries that are no content: those of file systems and of this module.
const NO_CONTENT: [&str; 2] = ["lost+found", ".lock"];

/// Returns the names of what is in a directory, without temporary entries. Those that a reader looks for first come last.
pub(super) fn content(dir: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let counts = !NO_CONTENT.iter().any(|other| name == *other);
        if counts && !is_temporary(&name) && name != LOCK {
            names.push(name);
        }
    }
    names.sort();
    names.sort_by_key(is_config);
    Ok(names)
}

/// Replaces the content of `dir` by that of the temporary directory in it.
///
/// # Errors
/// The first that occurs, and true if the old content is back.
pub(super) fn put(temporary: &Path, dir: &Path) -> std::result::Result<(), (Error, bool)> {
    replace(temporary, dir).map_err(|error| (error, restore(temporary, dir).is_ok()))
}

/// Returns true for content that a write of this project may be: nothing, or files with a configuration among them.
pub(super) fn is_replaceable(dir: &Path, names: &[OsString]) -> bool {
    let is_file = |name: &&OsString| dir.join(name).is_file();
    let (files, others): (Vec<&OsString>, Vec<&OsString>) = names.iter().partition(is_file);
    let has_config = files.iter().any(|name| is_config(name));
    names.is_empty() || (has_config && others.iter().all(|name| *name == "prefix"))
}

fn is_config(name: &OsString) -> bool {
    name == "config.json" || name == "adapter_config.json"
}

fn replace(temporary: &Path, dir: &Path) -> Result<()> {
    let (fresh, old, whole) = (
        temporary.join(NEW),
        temporary.join(OLD),
        temporary.join(WHOLE),
    );
    fs::create_dir(&old)?;
    move_all(dir, &old)?;
    rename(&old, &whole)?;
    move_all(&fresh, dir)
}

/// Puts the old content back if the new one is not in place as a whole.
///
/// # Errors
/// The first that occurs.
pub(super) fn restore(temporary: &Path, dir: &Path) -> Result<()> {
    let (fresh, old, whole) = (
        temporary.join(NEW),
        temporary.join(OLD),
        temporary.join(WHOLE),
    );
    if old.exists() {
        return move_all(&old, dir);
    }
    if !whole.exists() || content(&fresh)?.is_empty() {
        return Ok(());
    }
    for name in content(dir)? {
        let new = dir.join(&name);
        rename(&new, &fresh.join(&name))?;
    }
    // From here on, the state is that of the first moves.
    rename(&whole, &old)?;
    move_all(&old, dir)
}

fn move_all(from: &Path, to: &Path) -> Result<()> {
    for name in content(from)? {
        rename(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, names: &[&str], text: &str) {
        for name in names {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    /// Kills after each number of moves, undone as the next writer does it.
    #[test]
    fn the_old_content_is_back_after_any_number_of_moves() {
        let (olds, news) = (["a", "config.json", "z"], ["a", "b", "config.json"]);
        for moves in 0..=7 {
            let dir = tempfile::tempdir().unwrap();
            let (dir, temporary) = (dir.path(), dir.path().join(".lora-01234567-aaaaaa.tmp"));
            fs::create_dir_all(temporary.join(NEW)).unwrap();
            fs::create_dir(temporary.join(OLD)).unwrap();
            write(dir, &olds, "old");
            write(&temporary.join(NEW), &news, "new");
            let mut left = moves;
            let mut step = |from: std::path::PathBuf, to: std::path::PathBuf| {
                if left > 0 {
                    left -= 1;
                    fs::rename(from, to).unwrap();
                }
            };
            for name in olds {
                step(dir.join(name), temporary.join(OLD).join(name));
            }
            step(temporary.join(OLD), temporary.join(WHOLE));
            for name in news {
                step(temporary.join(NEW).join(name), dir.join(name));
            }
            restore(&temporary, dir).unwrap();
            let (expected, text) = if moves == 7 {
                (news, "new")
            } else {
                (olds, "old")
            };
            let mut found = content(dir).unwrap();
            found.sort();
            assert_eq!(found, expected, "after {moves} moves");
            for name in expected {
                assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), text, "{name}");
            }
        }
    }
}
