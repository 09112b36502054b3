//! Files beside an adapter that PEFT has no place for: a classifier's labels, and a tokenizer with new tokens.

use crate::error::LoraError;
use crate::files::{Directory, note_read};

/// Configuration of the model, with the labels of a classifier.
const MODEL_CONFIG: &str = "config.json";
/// Limit for that file in bytes; none is anywhere near this size.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Files that can belong to a tokenizer: those that define it and those that configure its use. One is in a folder of its own.
pub const TOKENIZER_FILES: [&str; 11] = [
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
    "additional_chat_templates/tool_use.jinja",
];
/// Limit for a tokenizer file, in bytes. The largest in use, with a quarter of a million tokens, have some 30 MB.
pub const TOKENIZER_LIMIT: u64 = 64 << 20;

/// Names of files with their contents.
type Files = Vec<(String, Vec<u8>)>;

/// Reads the files that every use of an adapter needs.
pub(super) fn read_small(dir: &Directory) -> Result<Files, LoraError> {
    let files = read(dir, &[MODEL_CONFIG], CONFIG_LIMIT)?;
    if !files.is_empty() {
        note_read(dir.file(MODEL_CONFIG).path());
    }
    Ok(files)
}

/// Reads the files of the tokenizer beside an adapter.
pub(super) fn read_tokenizer(dir: &Directory) -> Result<Files, LoraError> {
    read(dir, &TOKENIZER_FILES, TOKENIZER_LIMIT)
}

/// Returns true for the name of a tokenizer's file.
pub(crate) fn is_of_tokenizer(name: &str) -> bool {
    TOKENIZER_FILES.contains(&name)
}

fn read(dir: &Directory, names: &[&str], limit: u64) -> Result<Files, LoraError> {
    let mut files = Files::new();
    for name in names {
        if !dir.file(name).is_file() {
            continue;
        }
        if let Some(bytes) = dir.read_companion(name, limit)? {
            files.push((name.to_string(), bytes));
        }
    }
    Ok(files)
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
        let small = names(read_small(&dir.path().into()).unwrap());
        assert_eq!(small, ["config.json"]);
        let files = names(read_tokenizer(&dir.path().into()).unwrap());
        assert_eq!(files, ["tokenizer.json", "merges.txt"]);
    }
}
