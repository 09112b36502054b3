//! Comparison of a tokenizer's files with those in another directory.

use super::{MAX_FILE_BYTES, Tokenizer};
use crate::error::ModelError;
use lora_core::file::TOKENIZER_FILES;
use lora_core::files::{Directory, DirectoryFile};
use std::io::Read;

impl Tokenizer {
    /// Returns true if a directory has the tokenizer's files, byte for byte, and no other file of a tokenizer.
    pub fn is_copied_in(&self, dir: impl Into<Directory>) -> bool {
        let dir = dir.into();
        TOKENIZER_FILES.iter().all(|name| {
            let [own, other] = [&self.dir, &dir].map(|dir| dir.file(name));
            if own.is_file() {
                has_bytes_of(&own, &other).unwrap_or(false)
            } else {
                !other.exists()
            }
        })
    }
}

/// True if two regular files below the limit have the same bytes.
fn has_bytes_of(file: &DirectoryFile, other: &DirectoryFile) -> Result<bool, ModelError> {
    let opened = [file.open()?, other.open()?];
    if opened[0].1 != opened[1].1 || opened[0].1 > MAX_FILE_BYTES {
        return Ok(false);
    }
    let mut bytes = [Vec::new(), Vec::new()];
    for ((file, _), bytes) in opened.into_iter().zip(&mut bytes) {
        let read = file.take(MAX_FILE_BYTES).read_to_end(bytes);
        read.map_err(ModelError::io(other.path()))?;
    }
    Ok(bytes[0] == bytes[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_copy_has_all_files_with_the_same_bytes_and_no_other() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/gpt2_tied");
        let tokenizer = Tokenizer::from_dir(fixture).unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert!(tokenizer.is_copied_in(fixture) && !tokenizer.is_copied_in(dir.path()));
        tokenizer.save_to(dir.path()).unwrap();
        fs::write(dir.path().join("README.md"), "card").unwrap();
        assert!(tokenizer.is_copied_in(dir.path()));

        let template = dir.path().join("chat_template.jinja");
        fs::write(&template, "{{ messages }}").unwrap();
        assert!(!tokenizer.is_copied_in(dir.path()), "another file");
        fs::remove_file(&template).unwrap();
        let file = dir.path().join("tokenizer.json");
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert!(!tokenizer.is_copied_in(dir.path()), "another byte");
    }
}
