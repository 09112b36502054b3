//! Writing of a file of tokens, example by example.

use super::layout::{Footer, StoredExample, TokenLimits, Width, header, write_counted};
use super::reader::Info;
use crate::data::digest::DigestBuilder;
use crate::data::example::Example;
use crate::error::TrainError;
use lora_core::files::{AtomicFile, create_folder_of};
use serde::Serialize;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writer of a file of tokens. Nothing is at the path before [`finish`](Self::finish).
///
/// The position of each example is kept, 8 bytes.
pub(crate) struct TokenFileWriter<'a> {
    path: PathBuf,
    file: BufWriter<AtomicFile>,
    width: Width,
    /// Data files, to which examples belong.
    files: &'a [PathBuf],
    index: Vec<u64>,
    position: u64,
    record: Vec<u8>,
    digest: DigestBuilder<'static>,
}

impl<'a> TokenFileWriter<'a> {
    /// Starts a file for tokens within limits. `key` is the hash of all that they depend on, in 32 digits; `files` are the data files of the examples.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(
        path: &Path,
        key: &str,
        limits: TokenLimits,
        files: &'a [PathBuf],
    ) -> Result<Self, TrainError> {
        create_folder_of(path)?;
        let mut writer = Self {
            path: path.into(),
            file: BufWriter::new(AtomicFile::create(path)?),
            width: Width::of(limits.vocabulary),
            files,
            index: Vec::new(),
            position: 0,
            record: Vec::new(),
            digest: DigestBuilder::new(&[]),
        };
        let header = header(writer.width, key);
        writer.write(&header)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        write_counted(&mut self.file, bytes, &mut self.position).map_err(TrainError::io(&self.path))
    }

    /// Adds the next example.
    ///
    /// # Errors
    /// If the file cannot be written; [`TrainError::Config`] for an example that the file has no place for.
    pub fn add(&mut self, example: &Example) -> Result<(), TrainError> {
        let origin = example.origin();
        let file = self.files.iter().position(|path| path == origin.path());
        let mut record = std::mem::take(&mut self.record);
        let written = file
            .and_then(|file| u32::try_from(file).ok())
            .and_then(|file| StoredExample::write(example, file, self.width, &mut record));
        if written.is_none() {
            let message = format!(
                "disk has no place for the example of {origin}, which is none of a language model; give memory"
            );
            return Err(TrainError::config("data_cache", message));
        }
        self.index.push(self.position);
        self.write(&record)?;
        self.record = record;
        self.digest.add(example);
        Ok(())
    }

    /// Completes the file. `more` comes back when it is opened.
    ///
    /// # Errors
    /// If the file cannot be written; the one at the path is then as before.
    pub fn finish(mut self, more: &impl Serialize) -> Result<(), TrainError> {
        let digest = std::mem::replace(&mut self.digest, DigestBuilder::new(&[]));
        let malformed = |error: serde_json::Error| TrainError::io(&self.path)(error.into());
        let info = Info {
            digest: digest.finish(),
            more: serde_json::to_value(more).map_err(malformed)?,
        };
        let info = serde_json::to_vec(&info).map_err(malformed)?;
        let index = std::mem::take(&mut self.index);
        let footer = Footer {
            examples: index.len() as u64,
            index: self.position,
            info: info.len() as u64,
        };
        for position in index {
            self.write(&position.to_le_bytes())?;
        }
        self.write(&info)?;
        self.write(&footer.to_bytes())?;
        self.file.flush().map_err(TrainError::io(&self.path))?;
        let file = self.file.into_inner();
        let file = file.map_err(|error| TrainError::io(&self.path)(error.into_error()))?;
        Ok(file.commit()?)
    }
}
