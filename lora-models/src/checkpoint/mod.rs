//! Weights of the Hugging Face formats: read from whichever files a model directory has, written as safetensors.
//!
//! | concept | file |
//! | --- | --- |
//! | [`Checkpoint`]: named tensors of a directory, whatever files they lie in | `mod.rs` |
//! | [`CheckpointSource`]: which files a directory has, and which are taken | `layout.rs`, `shard_index.rs` |
//! | safetensors, mapped into memory | `safetensors_file.rs` |
//! | pickles of `torch.save`, looked through and never executed | `pickle_file.rs`, `pickle_scan.rs`, `zip_directory.rs` |
//! | pickles written for PyTorch: [`write_pickle`] | `pickle_writer.rs` |
//! | [`HostTensor`], [`DType`]: elements and their conversion to `f32` | `host_tensor.rs`, `dtype.rs` |
//! | [`StrictReader`], [`LoadReport`]: every tensor used, ignored by name, or an error | `strict_reader.rs`, `load_report.rs` |
//! | [`SafetensorsExport`]: writing a checkpoint, one tensor in memory at a time | `export.rs`, `safetensors_writer.rs`, `export_dtype.rs` |
//!
//! Nothing here knows of models: the names of tensors are those in the files, and the key map of a model family turns
//! them into fields.
//!
//! # Hostile files
//!
//! A checkpoint is somebody else's file. Lengths, offsets and shapes are compared with the size of the file before
//! anything is allocated for them; shard names cannot lead out of the directory; pickles are parsed and never
//! executed, and refused when they refer to anything but tensors. What breaks a rule is an error with the file's path.
//!
//! # Examples
//!
//! ```
//! use lora_models::checkpoint::{Checkpoint, SafetensorsExport, StrictReader};
//!
//! # fn main() -> Result<(), lora_models::ModelError> {
//! # let dir = tempfile::tempdir().map_err(|source| lora_models::ModelError::Io { path: "tmp".into(), source })?;
//! # let dir = dir.path();
//! let plan = [("wte.weight".to_string(), vec![3, 2])];
//! SafetensorsExport::new(dir).write(&plan, |_| Ok(vec![0.5, 1.0, 1.5, 2.0, 2.5, 3.0]))?;
//!
//! let checkpoint = Checkpoint::open(dir)?;
//! let mut reader = StrictReader::new(&checkpoint);
//! reader.check(&plan, &[])?;
//! let embedding = reader.take("wte.weight", &[3, 2])?;
//! let report = reader.finish()?;
//! assert_eq!(embedding.values[3], 2.0);
//! assert_eq!(report.parameters, 6);
//! # Ok(())
//! # }
//! ```

pub(crate) mod bounded;
mod dtype;
mod export;
mod export_dtype;
mod host_tensor;
pub(crate) mod layout;
mod load_report;
mod pickle_file;
mod pickle_scan;
mod pickle_writer;
mod safetensors_file;
mod safetensors_writer;
pub(crate) mod shard_index;
mod strict_reader;
mod zip_directory;

pub use dtype::DType;
pub use export::{DEFAULT_MAX_SHARD_BYTES, ExportReport, SafetensorsExport};
pub use export_dtype::ExportDType;
pub use host_tensor::HostTensor;
pub use layout::CheckpointSource;
pub use load_report::{IgnoredTensor, LoadReport};
pub use pickle_writer::write_pickle;
pub use safetensors_writer::{TensorRef, write_safetensors};
pub use strict_reader::StrictReader;

use crate::error::ModelError;
use layout::{Layout, file_name};
use pickle_file::PickleFile;
use safetensors_file::SafetensorsFile;
use shard_index::ShardIndex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The tensors of a model, by the names that they have in its files.
///
/// Opening reads headers only. Elements are read when asked for, and may be read from several threads at once.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    source: CheckpointSource,
    files: Vec<WeightFile>,
    /// Each tensor with the position of its file in `files`.
    tensors: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Opens the weights of a model directory, or one file of weights or an index by its own path.
    ///
    /// A directory is looked through for `model.safetensors`, `model.safetensors.index.json`, `pytorch_model.bin` and
    /// `pytorch_model.bin.index.json`, in this order, and the first that is there is taken.
    ///
    /// Safetensors files stay mapped for as long as the checkpoint lives, and on Unix as a model that was loaded from it:
    /// weights in f32 that lie as they are used are not copied. The files may be replaced or removed meanwhile (by
    /// renaming, as [`SafetensorsExport`] does), but must not be changed or cut short in place.
    ///
    /// # Errors
    ///
    /// [`ModelError::MissingFile`] where none of them is there, or a shard is not;
    /// [`ModelError::Malformed`] and [`ModelError::Json`] where a file breaks its format, two shards hold the same
    /// tensor, or a shard lacks one that the index says it has; [`ModelError::TooLarge`] for an index of absurd
    /// length; [`ModelError::Io`] where a file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let layout = Layout::find(path)?;
        let files = layout
            .files
            .iter()
            .map(|file| WeightFile::open(file, layout.source))
            .collect::<Result<Vec<_>, _>>()?;
        let mut tensors = BTreeMap::new();
        for (position, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(earlier) = tensors.insert(name.clone(), position) {
                    let earlier: &WeightFile = &files[earlier];
                    let message = format!(
                        "it holds tensor `{name}`, which {} holds as well",
                        file_name(&earlier.path)
                    );
                    return Err(ModelError::malformed(&file.path, message));
                }
            }
        }
        if let Some(index) = &layout.index {
            check_index(index, &files, &tensors)?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            source: layout.source,
            files,
            tensors,
        })
    }

    /// The path that the checkpoint was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of files the tensors lie in.
    pub fn source(&self) -> CheckpointSource {
        self.source
    }

    /// The files that hold tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Length of those files together, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(WeightFile::file_bytes).sum()
    }

    /// What safetensors files note beside their tensors; where several note the same key, the first counts.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let files = self.files.iter().rev();
        files.flat_map(WeightFile::metadata).collect()
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Extents of a tensor, outermost first; `None` where there is none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.file_of(name)?.shape(name)
    }

    /// Element type of a tensor in the file; `None` where there is none of that name.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.file_of(name)?.dtype(name)
    }

    /// Bytes that a tensor takes in its stored type; `None` where there is none of that name.
    pub fn bytes_of(&self, name: &str) -> Option<u64> {
        self.file_of(name)?.bytes_of(name)
    }

    /// Reads a tensor of floats, converted to `f32`.
    ///
    /// # Errors
    ///
    /// [`ModelError::TensorMissing`] where there is none of that name, [`ModelError::TensorDtype`] where its elements
    /// are no floats, [`ModelError::Malformed`] or [`ModelError::Io`] where they cannot be read.
    pub fn read_f32(&self, name: &str) -> Result<HostTensor, ModelError> {
        let missing = || ModelError::TensorMissing {
            names: vec![name.to_string()],
        };
        self.file_of(name)
            .and_then(|file| file.read_f32(name))
            .ok_or_else(missing)?
    }

    /// The elements of a tensor in the pages of its file, which stays mapped for as long as they are held; `None` where
    /// they are to be [read](Self::read_f32): a tensor of another type than `f32`, a pickle.
    pub(crate) fn mapped_f32(&self, name: &str) -> Option<bytes::Bytes> {
        match &self.file_of(name)?.content {
            Content::Safetensors(file) => file.mapped_f32(name),
            Content::Pickle(_) => None,
        }
    }

    fn file_of(&self, name: &str) -> Option<&WeightFile> {
        self.tensors
            .get(name)
            .and_then(|&position| self.files.get(position))
    }
}

/// Compares the index with what the shards hold.
fn check_index(
    index: &ShardIndex,
    files: &[WeightFile],
    tensors: &BTreeMap<String, usize>,
) -> Result<(), ModelError> {
    for (tensor, shard) in index.tensors() {
        let holder = tensors
            .get(tensor)
            .and_then(|&position| files.get(position));
        if holder.is_none_or(|file| file_name(&file.path) != shard) {
            // `Layout` took the files from this index, so the shard is one of them.
            let path = files
                .iter()
                .map(|file| &file.path)
                .find(|path| file_name(path) == shard);
            return Err(ModelError::Malformed {
                path: path.cloned().unwrap_or_else(|| PathBuf::from(shard)),
                message: format!("it lacks tensor `{tensor}`, which the index says it holds"),
            });
        }
    }
    Ok(())
}

/// One opened file of tensors.
#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Safetensors(SafetensorsFile),
    Pickle(PickleFile),
}

/// Calls the same method of whichever kind of file it is.
macro_rules! of_content {
    ($file:expr, $method:ident($($argument:expr),*)) => {
        match &$file.content {
            Content::Safetensors(file) => file.$method($($argument),*),
            Content::Pickle(file) => file.$method($($argument),*),
        }
    };
}

impl WeightFile {
    fn open(path: &Path, source: CheckpointSource) -> Result<Self, ModelError> {
        let content = if source.is_pickle() {
            Content::Pickle(PickleFile::open(path)?)
        } else {
            Content::Safetensors(SafetensorsFile::open(path)?)
        };
        Ok(Self {
            path: path.to_path_buf(),
            content,
        })
    }

    fn names(&self) -> Vec<String> {
        of_content!(self, names())
    }

    fn metadata(&self) -> Vec<(String, String)> {
        match &self.content {
            Content::Safetensors(file) => file.metadata(),
            Content::Pickle(_) => Vec::new(),
        }
    }

    fn file_bytes(&self) -> u64 {
        of_content!(self, file_bytes())
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        of_content!(self, shape(name))
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        of_content!(self, dtype(name))
    }

    fn bytes_of(&self, name: &str) -> Option<u64> {
        of_content!(self, bytes_of(name))
    }

    fn read_f32(&self, name: &str) -> Option<Result<HostTensor, ModelError>> {
        of_content!(self, read_f32(name))
    }
}
