//! Files beside an adapter that PEFT has no place for: a classifier's labels, and a tokenizer with new tokens.

use crate::error::LoraError;
use crate::files::read_bounded;
use std::path::{Path, PathBuf};

/// Configuration of the model, with the labels of a classifier.
const MODEL_CONFIG: &str = "config.json";
/// Limit for that file in bytes; none is anywhere near this size.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Files that can belong to a tokenizer: those that define it and those that configure its use.
pub const TOKENIZER_FILES: [&str; 10] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];
/// Limit for a tokenizer file, in bytes. The largest in use, with a quarter of a million tokens, have some 30 MB.
pub const TOKENIZER_LIMIT: u64 = 64 << 20;

/// Names of files with their contents.
type Files = Vec<(String, Vec<u8>)>;

/// Reads the files that every use of an adapter needs.
pub(super) fn read_small(dir: &Path) -> Result<Files, LoraError> {
    read(dir, &[MODEL_CONFIG], CONFIG_LIMIT)
}

/// Reads the files of the tokenizer beside an adapter.
pub(super) fn read_tokenizer(dir: &Path) -> Result<Files, LoraError> {
    read(dir, &TOKENIZER_FILES, TOKENIZER_LIMIT)
}

/// Returns true for the name of a tokenizer's file.
pub(crate) fn is_of_tokenizer(name: &str) -> bool {
    TOKENIZER_FILES.contains(&name)
}

fn read(dir: &Path, names: &[&str], limit: u64) -> Result<Files, LoraError> {
    let mut files = Files::new();
    for name in names {
        if let Some(path) = own_file(dir, name)? {
            files.push((name.to_string(), read_bounded(&path, limit)?));
        }
    }
    Ok(files)
}

/// Returns the path of a regular file beside an adapter; `None` if there is none.
///
/// Its bytes are written beside other adapters. A link must not bring them from elsewhere on this machine: it is followed inside
/// the directory, and into the cache of the Hugging Face Hub that the directory is a part of.
fn own_file(dir: &Path, name: &str) -> Result<Option<PathBuf>, LoraError> {
    let path = dir.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let target = path.canonicalize().map_err(LoraError::io(&path))?;
    let dir = dir.canonicalize().map_err(LoraError::io(dir))?;
    let mut around = dir.ancestors();
    let snapshots = around.find(|around| around.file_name().is_some_and(|n| n == "snapshots"));
    let blobs = snapshots.and_then(|snapshots| Some(snapshots.parent()?.join("blobs")));
    if target.starts_with(&dir) || blobs.is_some_and(|blobs| target.starts_with(blobs)) {
        return Ok(Some(path));
    }
    let message = "is a link to a file outside of the adapter's directory, which is not followed; put a copy in its place";
    Err(LoraError::malformed(&path, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_tokenizer_are_read_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "tokenizer.json", "merges.txt", "other.json"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::create_dir(dir.path().join("vocab.txt")).unwrap();
        let names = |files: Files| -> Vec<String> {
            let names = files
                .iter()
                .inspect(|(name, bytes)| assert_eq!(name.as_bytes(), bytes));
            names.map(|(name, _)| name.clone()).collect()
        };
        let small = names(read_small(dir.path()).unwrap());
        assert_eq!(small, ["config.json"]);
        let files = names(read_tokenizer(dir.path()).unwrap());
        assert_eq!(files, ["tokenizer.json", "merges.txt"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_inside_and_in_the_cache_of_the_hub_alone() {
        use std::os::unix::fs::symlink;
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let dir = root.join("snapshots/0a/adapter");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::create_dir(root.join("blobs")).unwrap();
        for file in ["blobs/1", "secret", "snapshots/0a/adapter/vocab.json"] {
            std::fs::write(root.join(file), "{}").unwrap();
        }
        symlink("../../../blobs/1", dir.join("tokenizer.json")).unwrap();
        symlink("vocab.json", dir.join("added_tokens.json")).unwrap();
        symlink("nowhere", dir.join("vocab.txt")).unwrap();
        assert_eq!(read_tokenizer(&dir).unwrap().len(), 3);
        for name in ["config.json", "merges.txt"] {
            symlink(root.join("secret"), dir.join(name)).unwrap();
        }
        for result in [read_small(&dir), read_tokenizer(&dir)] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("is a link to a file outside"), "{message}");
        }
    }
}
