//! Weight files of a model directory.

use super::shard_index::ShardIndex;
use crate::error::ModelError;
use crate::misplaced::without_weights;
use lora_core::files::{Directory, DirectoryFile};
use std::fmt;
use std::path::Path;

/// Name of a single safetensors file.
pub(crate) const SAFETENSORS: &str = "model.safetensors";
/// Name of the index of several safetensors files.
pub(crate) const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
/// Name of a single file written by `torch.save`.
pub(crate) const PYTORCH_BIN: &str = "pytorch_model.bin";
/// Name of the index of several files written by `torch.save`.
pub(crate) const PYTORCH_BIN_INDEX: &str = "pytorch_model.bin.index.json";

/// Files of a model directory, in order of preference.
pub(crate) const FILES: [(&str, CheckpointSource); 4] = [
    (SAFETENSORS, CheckpointSource::Safetensors),
    (SAFETENSORS_INDEX, CheckpointSource::SafetensorsShards),
    (PYTORCH_BIN, CheckpointSource::PytorchBin),
    (PYTORCH_BIN_INDEX, CheckpointSource::PytorchBinShards),
];

/// Extensions of single files; the first that fits counts.
const EXTENSIONS: [(&str, CheckpointSource); 6] = [
    (
        ".safetensors.index.json",
        CheckpointSource::SafetensorsShards,
    ),
    (".bin.index.json", CheckpointSource::PytorchBinShards),
    (".safetensors", CheckpointSource::Safetensors),
    (".bin", CheckpointSource::PytorchBin),
    (".pt", CheckpointSource::PytorchBin),
    (".pth", CheckpointSource::PytorchBin),
];

/// Kind of the files that hold the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckpointSource {
    /// `model.safetensors`.
    Safetensors,
    /// `model.safetensors.index.json` and its shards.
    SafetensorsShards,
    /// `pytorch_model.bin`, a pickle.
    PytorchBin,
    /// `pytorch_model.bin.index.json` and its shards.
    PytorchBinShards,
}

impl CheckpointSource {
    /// True if the tensors lie in pickles.
    pub fn is_pickle(self) -> bool {
        matches!(self, Self::PytorchBin | Self::PytorchBinShards)
    }

    /// True if an index names several files.
    pub(crate) fn is_sharded(self) -> bool {
        matches!(self, Self::SafetensorsShards | Self::PytorchBinShards)
    }

    /// Returns the extension of the files that hold the tensors.
    pub(crate) fn extension(self) -> &'static str {
        if self.is_pickle() {
            ".bin"
        } else {
            ".safetensors"
        }
    }
}

impl fmt::Display for CheckpointSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::SafetensorsShards => "safetensors shards",
            Self::PytorchBin => "PyTorch pickle",
            Self::PytorchBinShards => "PyTorch pickle shards",
        })
    }
}

/// Files of a checkpoint, found but not opened.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(super) source: CheckpointSource,
    /// Files that hold tensors, each once.
    pub(super) files: Vec<DirectoryFile>,
    /// Shard of each tensor, for a checkpoint in shards.
    pub(super) index: Option<ShardIndex>,
}

impl Layout {
    /// Looks for the weights in a model directory, or at the path of one of the files themselves.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] with the names looked for, [`ModelError::NotAModel`] for what is no model or of another format,
    /// and the errors of reading an index.
    pub(crate) fn find(dir: &Directory) -> Result<Self, ModelError> {
        let path = dir.path();
        if !dir.exists() {
            return Err(missing(path));
        }
        if dir.is_directory() {
            let found = FILES.iter().find(|(name, _)| dir.file(name).exists());
            let missing = || without_weights(dir).unwrap_or_else(|| missing(path));
            let (name, source) = found.ok_or_else(missing)?;
            return Self::from_source(*source, dir.file(name), dir);
        }
        let name = file_name(path);
        let source = EXTENSIONS.iter().find(|(ending, _)| name.ends_with(ending));
        let Some(&(_, source)) = source else {
            let endings = EXTENSIONS.map(|(ending, _)| ending).join(", ");
            let message = format!("its name ends with none of {endings}, so its kind is unknown");
            return Err(ModelError::malformed(path, message));
        };
        let dir = path.parent().unwrap_or_else(|| Path::new("."));
        Self::from_source(source, path.into(), &dir.into())
    }

    /// Returns the layout of a file and, if it is an index, the shards beside it.
    fn from_source(
        source: CheckpointSource,
        file: DirectoryFile,
        dir: &Directory,
    ) -> Result<Self, ModelError> {
        let mut layout = Self {
            source,
            files: vec![file],
            index: None,
        };
        if source.is_sharded() {
            let index = ShardIndex::read(&layout.files[0], source.extension())?;
            let names = index.shard_names();
            let files: Vec<DirectoryFile> = names.iter().map(|name| dir.file(name)).collect();
            if let Some(absent) = files.iter().find(|file| !file.exists()) {
                let name = file_name(absent.path());
                return Err(ModelError::missing_file(dir.path(), [name]));
            }
            layout.files = files;
            layout.index = Some(index);
        }
        Ok(layout)
    }
}

fn missing(path: &Path) -> ModelError {
    ModelError::missing_file(path, FILES.map(|(name, _)| name.to_string()))
}

/// Returns the last component of a path, for messages and reports.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safetensors_come_before_pickles() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(PYTORCH_BIN), b"").unwrap();
        assert_eq!(
            Layout::find(&dir.path().into()).unwrap().source,
            CheckpointSource::PytorchBin
        );
        std::fs::write(dir.path().join(SAFETENSORS), b"").unwrap();
        assert_eq!(
            Layout::find(&dir.path().into()).unwrap().source,
            CheckpointSource::Safetensors
        );
    }

    #[test]
    fn an_empty_directory_names_all_that_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let message = Layout::find(&dir.path().into()).unwrap_err().to_string();
        for name in [
            SAFETENSORS,
            SAFETENSORS_INDEX,
            PYTORCH_BIN,
            PYTORCH_BIN_INDEX,
        ] {
            assert!(message.contains(name), "{message}");
        }
        assert!(matches!(
            Layout::find(&dir.path().join("no/such/place").into()),
            Err(ModelError::MissingFile { .. })
        ));
    }

    #[test]
    fn a_file_tells_its_kind_by_its_ending() {
        let dir = tempfile::tempdir().unwrap();
        for (name, source) in [
            ("adapter.safetensors", CheckpointSource::Safetensors),
            ("weights.pt", CheckpointSource::PytorchBin),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, b"").unwrap();
            assert_eq!(Layout::find(&path.into()).unwrap().source, source);
        }
        let other = dir.path().join("model.gguf");
        std::fs::write(&other, b"").unwrap();
        assert!(matches!(
            Layout::find(&other.into()),
            Err(ModelError::Malformed { .. })
        ));
    }
}
