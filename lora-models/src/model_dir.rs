//! Model directories.

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::export::CONFIG_FILE;
use crate::generate::GenerationFile;
use crate::pretrained::read_object;
use crate::tokenizer::Tokenizer;
use lora_core::files::Directory;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::OnceLock;

/// Model directory, on disk or in memory. Its `config.json` is read once, when it is opened, its tokenizer and its settings for text
/// generation once, when they are first needed.
#[derive(Clone, Debug)]
pub struct ModelDir {
    dir: Directory,
    object: Map<String, Value>,
    config: ModelConfig,
    tokenizer: OnceLock<Tokenizer>,
    generation: OnceLock<GenerationFile>,
}

impl ModelDir {
    /// Opens a directory; no other file than `config.json` is needed.
    ///
    /// # Errors
    /// As [`ModelConfig::from_dir`].
    pub fn open(dir: impl Into<Directory>) -> Result<Self, ModelError> {
        let dir = dir.into();
        let (file, object) = read_object(&dir)?;
        Ok(Self {
            dir,
            config: ModelConfig::from_json(&file, object.clone())?,
            object,
            tokenizer: OnceLock::new(),
            generation: OnceLock::new(),
        })
    }

    /// Returns the path of the directory, or its name if it is in memory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the directory itself.
    pub fn directory(&self) -> &Directory {
        &self.dir
    }

    /// Uses a language model as the base of a classifier, whose head replaces the output layer.
    ///
    /// # Errors
    /// As [`ModelConfig::from_dir`].
    pub fn with_head(mut self) -> Result<Self, ModelError> {
        let file = self.dir.file(CONFIG_FILE);
        self.config = ModelConfig::with_head(file.path(), self.object.clone())?;
        Ok(self)
    }

    /// Returns the configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Reads the settings for text generation, or returns those that were read.
    ///
    /// # Errors
    /// As [`GenerationFile::read`].
    pub fn generation(&self) -> Result<GenerationFile, ModelError> {
        read_once(&self.generation, || {
            GenerationFile::read(&self.dir, &self.object)
        })
    }

    /// Loads the tokenizer, or returns the loaded one.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        read_once(&self.tokenizer, || {
            Tokenizer::with_config(&self.dir, &self.object)
        })
    }

    /// Loads a tokenizer of this model from another directory, such as that of an adapter whose tokens were added.
    ///
    /// # Errors
    /// As [`Tokenizer::from_dir`].
    pub fn tokenizer_in(&self, dir: impl Into<Directory>) -> Result<Tokenizer, ModelError> {
        Tokenizer::with_config(dir, &self.object)
    }
}

/// Returns the value of a cell, which is read if there is none yet.
fn read_once<T: Clone>(
    cell: &OnceLock<T>,
    read: impl FnOnce() -> Result<T, ModelError>,
) -> Result<T, ModelError> {
    if let Some(value) = cell.get() {
        return Ok(value.clone());
    }
    let value = read()?;
    Ok(cell.get_or_init(|| value).clone())
}
