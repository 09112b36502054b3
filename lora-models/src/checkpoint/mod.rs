//! Weights in the Hugging Face formats: readers for the files of a model directory, and an export as safetensors.
//!
//! | concept | file |
//! | --- | --- |
//! | [`Checkpoint`]: named tensors of a directory | `mod.rs` |
//! | [`CheckpointSource`]: weight files of a directory, in their order of preference | `layout.rs`, `shard_index.rs` |
//! | names below wrappers and dictionaries | `roots.rs` |
//! | safetensors, mapped into memory or read | `safetensors_file.rs`, `mapping.rs` |
//! | [`WeightFiles`]: files in the state in which they were read | `weight_files.rs` |
//! | pickles of `torch.save`, scanned and never executed | `pickle_file.rs` |
//! | [`write_pickle`]: pickles for PyTorch | `pickle_writer.rs` |
//! | [`HostTensor`], [`DType`]: elements and their conversion to `f32` | `host_tensor.rs`, `dtype.rs` |
//! | events of loads for `tracing` | `traced.rs` |
//! | [`StrictReader`], [`LoadReport`]: every tensor used, ignored by name, or an error | `strict_reader.rs`, `load_report.rs` |
//! | small files, read up to a limit | `bounded.rs` |
//! | [`SafetensorsExport`]: export of a checkpoint, one tensor in memory at a time | `export.rs`, `safetensors_writer.rs`, `export_dtype.rs` |
//!
//! This module knows nothing of models: tensors keep the names that they have in the files, but for the components of wrappers
//! such as `torch.compile` and of dictionaries around a state dict. The key map of each model family translates them to fields.
//!
//! `burn-store` has stores, key remapping and adapters of its own. It is not used here because it knows no shard index,
//! ignores unused tensors by default, and cannot quantize weights as they are read, which bounds the memory of a load.
//!
//! # Hostile files
//!
//! A checkpoint may come from an attacker. Lengths, offsets and shapes are compared with the size of the file before
//! anything is allocated for them; shard names cannot lead out of the directory; pickles are parsed and never
//! executed, and are refused if they refer to anything but tensors. Violations are errors with the file's path.
//!
//! # Examples
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
mod mapping;
mod pickle_file;
mod pickle_writer;
mod roots;
mod safetensors_file;
mod safetensors_writer;
pub(crate) mod shard_index;
mod strict_reader;
#[cfg(feature = "tracing")]
mod traced;
mod weight_files;

pub use dtype::{DType, is_float};
pub use export::{DEFAULT_MAX_SHARD_BYTES, ExportReport, SafetensorsExport};
pub use export_dtype::ExportDType;
pub use host_tensor::HostTensor;
pub use layout::CheckpointSource;
pub use load_report::{IgnoredTensor, LoadReport};
pub use mapping::{map_file, set_mapping};
pub use pickle_writer::write_pickle;
pub use safetensors_writer::{TensorRef, write_safetensors};
pub use strict_reader::StrictReader;
pub use weight_files::WeightFiles;

use crate::error::ModelError;
use bytes::Bytes;
use layout::{Layout, file_name};
use lora_core::file::MAX_TENSORS;
use lora_core::files::Directory;
use lora_core::{HalfFloat, first_half_not_finite, first_not_finite};
use pickle_file::PickleFile;
use roots::Names;
use safetensors_file::SafetensorsFile;
use shard_index::ShardIndex;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tensors of a model, by their names in its files.
///
/// Opening reads headers only. Elements are read on request, from several threads at once if needed.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    source: CheckpointSource,
    paths: Vec<PathBuf>,
    /// Opened files, in the order of `paths`.
    files: Vec<Box<dyn TensorFile>>,
    /// The files in the state in which they were opened.
    state: WeightFiles,
    /// Tensors by name in their files, each with the position of its file.
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    names: Names,
}

impl Checkpoint {
    /// Opens the weights of a model directory, on disk or in memory, or a single file of weights or an index by its own path.
    ///
    /// In a directory the first of `model.safetensors`, `model.safetensors.index.json`, `pytorch_model.bin` and
    /// `pytorch_model.bin.index.json` that exists is opened.
    ///
    /// Unless [`set_mapping`] forbids it or the system refuses, safetensors files stay mapped into memory as long as the checkpoint exists, and on Unix as long as a model that
    /// was loaded from it: f32 weights whose layout needs no change, and weights that stay in 16 bits, are not copied. The files may be replaced or
    /// removed meanwhile (by renaming, as [`SafetensorsExport`] does), but must not be changed or truncated in place:
    /// [`weight_files`](Self::weight_files) tells whether they were.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] if none of the files or a shard is missing; [`ModelError::Malformed`] and
    /// [`ModelError::Json`] if a file breaks its format, two shards hold the same tensor, or a shard lacks a tensor
    /// that the index assigns to it; [`ModelError::TooLarge`] for an oversized index; [`ModelError::Io`] if a file
    /// cannot be read.
    pub fn open(dir: impl Into<Directory>) -> Result<Self, ModelError> {
        let dir = dir.into();
        Self::open_layout(dir.path(), Layout::find(&dir)?)
    }

    /// Opens the content of a safetensors file, such as one that a program embeds by `include_bytes!`. Messages use `name` in the
    /// place of a path. Several files with their index are a [`Directory`] in memory, which [`open`](Self::open) takes.
    ///
    /// Bytes of the program are not copied, and neither are tensors that a model can use where they lie: f32 at addresses that are
    /// multiples of four.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Example
    /// ```
    /// use lora_models::checkpoint::Checkpoint;
    ///
    /// let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    /// let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    /// bytes.extend(header.as_bytes());
    /// bytes.extend(0.5f32.to_le_bytes());
    /// let checkpoint = Checkpoint::from_bytes("embedded.safetensors", bytes)?;
    /// assert_eq!(checkpoint.read_f32("w")?.values, [0.5]);
    /// # Ok::<(), lora_models::ModelError>(())
    /// ```
    pub fn from_bytes(
        name: &str,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self, ModelError> {
        let dir = Directory::in_memory("").with_file(name, bytes);
        let layout = Layout {
            source: CheckpointSource::Safetensors,
            files: vec![dir.file(name)],
            index: None,
        };
        Self::open_layout(Path::new(name), layout)
    }

    /// Opens the files of a layout; messages about all of them name `path`.
    fn open_layout(path: &Path, layout: Layout) -> Result<Self, ModelError> {
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        let mut state = WeightFiles::default();
        for (position, place) in layout.files.iter().enumerate() {
            let path = place.path();
            state.note(place)?;
            let file: Box<dyn TensorFile> = if layout.source.is_pickle() {
                Box::new(PickleFile::open(place)?)
            } else {
                Box::new(SafetensorsFile::open(place)?)
            };
            for (name, info) in file.tensors() {
                if let Some((earlier, _)) = tensors.insert(name.clone(), (position, info)) {
                    let earlier = file_name(layout.files[earlier].path());
                    let message = format!("tensor `{name}` is in {earlier} as well");
                    return Err(ModelError::malformed(path, message));
                }
            }
            if tensors.len() > MAX_TENSORS {
                let message = format!("the model has more than {MAX_TENSORS} tensors");
                return Err(ModelError::malformed(path, message));
            }
            files.push(file);
        }
        let names = Names::new(tensors.keys().map(String::as_str));
        let names = names.map_err(|message| ModelError::malformed(path, message))?;
        let checkpoint = Self {
            names,
            path: path.to_path_buf(),
            source: layout.source,
            paths: layout.files.iter().map(|file| file.path().into()).collect(),
            files,
            state,
            tensors,
        };
        if let Some(index) = &layout.index {
            checkpoint.check_index(index)?;
        }
        Ok(checkpoint)
    }

    /// Opens the weights of a model, as [`open`](Self::open). Names may lie below `model.` and the like: the first of `anchors`
    /// that is there, names of a tensor that every model of the family has, tells where the model begins.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_model(dir: &Directory, anchors: &[String]) -> Result<Self, ModelError> {
        let mut checkpoint = Self::open(dir)?;
        checkpoint.names.find_root(anchors);
        Ok(checkpoint)
    }

    /// Opens a state dict that may lie below `model.` and the like: the beginnings of a family's names tell where it begins.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_before(path: &Path, beginnings: &[&str]) -> Result<Self, ModelError> {
        let mut checkpoint = Self::open(path)?;
        checkpoint.names.find_root_before(beginnings);
        Ok(checkpoint)
    }

    /// Returns the path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the kind of the files that hold the tensors.
    pub fn source(&self) -> CheckpointSource {
        self.source
    }

    /// Returns the files that hold tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }

    /// Returns those files in the state in which they were opened.
    pub fn weight_files(&self) -> &WeightFiles {
        &self.state
    }

    /// Returns the total length of those files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.file_bytes()).sum()
    }

    /// Returns the metadata of safetensors files; if several files have the same key, the first one counts.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let files = self.files.iter().rev();
        files.flat_map(|file| file.metadata()).collect()
    }

    /// Returns the names of all tensors, sorted, without the state of a training.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.model.keys().map(String::as_str)
    }

    /// Returns the beginning of the names in the files that [`names`](Self::names) lack, such as `module.`; usually empty.
    pub fn root(&self) -> &str {
        &self.names.root
    }

    /// Returns the names of tensors that belong to the state of a training, such as an optimizer's.
    pub fn training_state(&self) -> &[String] {
        &self.names.training
    }

    /// Returns the number of tensors.
    pub fn len(&self) -> usize {
        self.names.model.len()
    }

    /// True if there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.names.model.is_empty()
    }

    /// True if there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.names.model.contains_key(name)
    }

    /// Returns the extents of a tensor, outermost first; `None` if there is no tensor of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.find(name)?.2.shape)
    }

    /// Returns the element type of a tensor in its file; `None` if there is no tensor of this name.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        Some(self.find(name)?.2.dtype)
    }

    /// Returns the size of a tensor in its stored type, in bytes; `None` if there is no tensor of this name.
    pub fn bytes_of(&self, name: &str) -> Option<u64> {
        Some(self.find(name)?.2.bytes())
    }

    /// Reads a tensor of floats, converted to `f32`.
    ///
    /// # Errors
    /// [`ModelError::TensorMissing`] if there is no tensor of this name, [`ModelError::TensorDtype`] if its elements
    /// are not floats, [`ModelError::Malformed`] or [`ModelError::Io`] if they cannot be read.
    pub fn read_f32(&self, name: &str) -> Result<HostTensor, ModelError> {
        let read = self.find(name).and_then(|(in_file, position, _)| {
            let file = self.files.get(position)?;
            file.read_f32(in_file)
        });
        read.ok_or_else(|| ModelError::missing(name))?
    }

    /// Reads a tensor of finite floats, converted to `f32`.
    ///
    /// # Errors
    /// As [`read_f32`](Self::read_f32), and [`ModelError::NotFinite`].
    pub fn read_finite(&self, name: &str) -> Result<HostTensor, ModelError> {
        let tensor = self.read_f32(name)?;
        self.refuse(name, first_not_finite(&tensor.values))?;
        Ok(tensor)
    }

    /// Returns the elements of a tensor in the mapped pages of its file. `None` for a tensor of another type than
    /// `f32` and for a pickle: [`read_finite`](Self::read_finite) converts these.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`].
    pub(crate) fn mapped_f32(&self, name: &str) -> Result<Option<Bytes>, ModelError> {
        let found = self.find(name).and_then(|(in_file, position, _)| {
            let file = self.files.get(position)?;
            file.mapped_f32(in_file)
        });
        if let Some(elements) = &found {
            self.refuse(name, first_not_finite(bytemuck::cast_slice(elements)))?;
        }
        Ok(found)
    }

    /// Returns the elements of an `f16` or `bf16` tensor in the mapped pages of its file. `None` for a tensor of another
    /// type and for a pickle.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`].
    pub(crate) fn mapped_half(
        &self,
        name: &str,
        half: HalfFloat,
    ) -> Result<Option<Bytes>, ModelError> {
        let found = self.find(name).and_then(|(in_file, position, _)| {
            let file = self.files.get(position)?;
            file.mapped_half(in_file)
        });
        if let Some(elements) = &found {
            let bad = match bytemuck::try_cast_slice(elements) {
                Ok(bits) => first_half_not_finite(bits, half),
                // Elements in a file may lie at any byte.
                Err(_) => {
                    first_half_not_finite(&bytemuck::pod_collect_to_vec::<u8, u16>(elements), half)
                }
            };
            self.refuse(name, bad)?;
        }
        Ok(found)
    }

    /// Refuses a tensor for a value that is not finite.
    fn refuse(&self, name: &str, bad: Option<f32>) -> Result<(), ModelError> {
        let Some(value) = bad else {
            return Ok(());
        };
        let file = self.find(name).and_then(|(_, at, _)| self.paths.get(at));
        Err(ModelError::NotFinite {
            path: file.unwrap_or(&self.path).clone(),
            name: name.into(),
            value,
        })
    }

    /// Returns the name of a tensor in its file, the position of the file, and the type and shape.
    fn find(&self, name: &str) -> Option<(&str, usize, &TensorInfo)> {
        let in_file = self.names.model.get(name)?;
        let (position, info) = self.tensors.get(in_file)?;
        Some((in_file, *position, info))
    }

    /// Compares the index with the tensors in the shards.
    fn check_index(&self, index: &ShardIndex) -> Result<(), ModelError> {
        for (tensor, shard) in index.tensors() {
            let holder = self.tensors.get(tensor).map(|&(position, _)| position);
            if holder.is_none_or(|position| file_name(&self.paths[position]) != shard) {
                // `Layout` took the files from this index, so the shard is one of them.
                let path = self.files().find(|path| file_name(path) == shard);
                let message = format!("it lacks tensor `{tensor}`, which the index assigns to it");
                let path = path.unwrap_or(Path::new(shard));
                return Err(ModelError::malformed(path, message));
            }
        }
        Ok(())
    }
}

/// Element type and extents of a stored tensor.
#[derive(Clone, Debug, PartialEq)]
struct TensorInfo {
    dtype: DType,
    /// Extents, outermost first.
    shape: Vec<usize>,
}

impl TensorInfo {
    /// Returns the size in bytes. The files were opened, so it is no more than they can hold.
    fn bytes(&self) -> u64 {
        let elements: usize = self.shape.iter().product();
        elements as u64 * self.dtype.bitsize() as u64 / 8
    }
}

/// An opened file of tensors.
trait TensorFile: std::fmt::Debug + Send + Sync {
    /// Returns the length of the file in bytes.
    fn file_bytes(&self) -> u64;

    /// Returns names, types and shapes of all tensors, in no order.
    fn tensors(&self) -> Vec<(String, TensorInfo)>;

    /// Reads a tensor as `f32`; `None` if there is no tensor of the name.
    fn read_f32(&self, name: &str) -> Option<Result<HostTensor, ModelError>>;

    /// Returns the metadata of the file.
    fn metadata(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Returns the mapped elements of an `f32` tensor, if this machine can compute with them in place.
    fn mapped_f32(&self, _name: &str) -> Option<Bytes> {
        None
    }

    /// Returns the mapped elements of an `f16` or `bf16` tensor, if the file can stay mapped.
    fn mapped_half(&self, _name: &str) -> Option<Bytes> {
        None
    }
}
