//! Key of a run: a hash of all that its results depend on.

use super::adapters::AdapterArg;
use super::sources::Sources;
use crate::TrainError;
use lora_core::files::open_regular;
use lora_models::adapter_layers::ADAPTER_LAYERS_DIR;
use lora_models::prefix::PrefixKind;
use sha2::{Digest, Sha256};
use std::fmt::Debug;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Endings of the files that a model directory or an adapter directory is read from.
const FILES: [&str; 7] = ["json", "safetensors", "bin", "pt", "txt", "model", "npz"];
/// Endings of weights that are not read beside safetensors.
const PICKLES: [&str; 2] = ["bin", "pt"];
/// Number of bytes of a file in memory.
const BLOCK: usize = 1 << 20;

/// Key of a run, by which a continued file of results is compared with the run: it covers the contents of the model's and the
/// adapters' files, not their places, and the options as they are in use.
#[derive(Default)]
pub(crate) struct RunKey(Sha256);

impl RunKey {
    /// Creates the key of a model and its adapters.
    ///
    /// # Errors
    /// If one of their files cannot be read.
    pub fn new(sources: &Sources) -> Result<Self, TrainError> {
        let mut key = Self::default();
        key.directory("model", sources.model.path())?;
        for adapter in sources.adapters() {
            let path = adapter.dir.path();
            key = key.with("adapter", &adapter.name);
            // What a file was converted to may differ in the order of notes.
            if let Some(AdapterArg { dir, foreign, .. }) = &adapter.converted {
                key = key.with("foreign", foreign);
                key.file("weights", dir)?;
                continue;
            }
            key.directory("weights", path)?;
            let kinds = PrefixKind::ALL.map(PrefixKind::name);
            for name in kinds.into_iter().chain([ADAPTER_LAYERS_DIR]) {
                let beside = path.join(name);
                if beside.is_dir() {
                    key.directory(name, &beside)?;
                }
            }
        }
        Ok(key)
    }

    /// Adds a value by its name.
    pub fn with(mut self, name: &str, value: &dyn Debug) -> Self {
        self.0.update(format!("{name} = {value:?}\n"));
        self
    }

    /// Adds bytes by a name.
    pub fn with_bytes(mut self, name: &str, bytes: &[u8]) -> Self {
        self.0.update(format!("{name:?} {}\n", bytes.len()));
        self.0.update(bytes);
        self
    }

    /// Returns the key as hexadecimal digits.
    pub fn finish(self) -> String {
        let bytes = self.0.finalize();
        bytes[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Adds the files of a directory, by name and content.
    fn directory(&mut self, what: &str, path: &Path) -> Result<(), TrainError> {
        self.0.update(format!("{what}\n"));
        let files = files(path)?;
        files
            .iter()
            .try_for_each(|(name, path)| self.file(name, path))
    }

    /// Adds a file by name and content.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(&mut self, name: &str, path: &Path) -> Result<(), TrainError> {
        let (file, length) = open_regular(path)?;
        self.0.update(format!("{name:?} {length}\n"));
        // Of a file that grows, its first length.
        let mut file = file.take(length);
        let mut block = vec![0; BLOCK.min(length as usize)];
        loop {
            match file.read(&mut block).map_err(TrainError::io(path))? {
                0 => return Ok(()),
                read => self.0.update(&block[..read]),
            }
        }
    }
}

/// Lists the files that a directory is read from, by name in order.
fn files(path: &Path) -> Result<Vec<(String, PathBuf)>, TrainError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(TrainError::io(path))? {
        let entry = entry.map_err(TrainError::io(path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let known = ending(&name).is_some_and(|ending| FILES.contains(&ending));
        // Links are followed, as in the cache of the Hub.
        if known && path.is_file() {
            files.push((name, path));
        }
    }
    if files
        .iter()
        .any(|(name, _)| ending(name) == Some("safetensors"))
    {
        files.retain(|(name, _)| !ending(name).is_some_and(|ending| PICKLES.contains(&ending)));
    }
    files.sort();
    Ok(files)
}

fn ending(name: &str) -> Option<&str> {
    Some(name.rsplit_once('.')?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &Path) -> String {
        let mut key = RunKey::default();
        key.directory("model", path).unwrap();
        key.with("seed", &7).finish()
    }

    /// The digits stand here so that another compiler or another release of this crate gives the same.
    #[test]
    fn the_key_is_the_same_in_every_build_and_changes_with_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let first = key(dir.path());
        assert_eq!(first, "d805caf20720a11eb2445014386167bf");
        // Not read.
        write("model.bin", "the same weights");
        write("predictions.jsonl", "{}");
        assert_eq!(key(dir.path()), first);
        // Of the same length, as after more training.
        write("model.safetensors", "weighty");
        assert_ne!(key(dir.path()), first);
        write("model.safetensors", "weights");
        assert_eq!(key(dir.path()), first);
        write("generation_config.json", "{}");
        assert_ne!(key(dir.path()), first);
    }
}
