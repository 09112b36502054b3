//! Export of the weights of a model directory: one file, or shards with their index.

use super::ExportDType;
use super::layout::{self, SAFETENSORS, SAFETENSORS_INDEX};
use super::safetensors_writer::{PlannedTensor, plan_tensors, write_file};
use crate::error::ModelError;
use lora_core::files::{Overwrite, write_file as write_file_atomically};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Default limit for the tensors of one file, in bytes: 5 GB in powers of 1000. A larger checkpoint is split.
pub const DEFAULT_MAX_SHARD_BYTES: u64 = 5_000_000_000;

/// Writer for the weights of a model in the form of `transformers`: `model.safetensors`, or
/// `model-00001-of-00002.safetensors` and so on with `model.safetensors.index.json`.
///
/// # Examples
/// ```
/// use lora_models::checkpoint::{Checkpoint, ExportDType, SafetensorsExport};
///
/// # fn main() -> Result<(), lora_models::ModelError> {
/// # let dir = tempfile::tempdir().map_err(|source| lora_models::ModelError::Io { path: "tmp".into(), source })?;
/// # let dir = dir.path();
/// let plan = [("ln_f.weight".to_string(), vec![4]), ("ln_f.bias".to_string(), vec![4])];
/// let report = SafetensorsExport::new(dir)
///     .with_dtype(ExportDType::BF16)
///     .write(&plan, |name| Ok(vec![if name.ends_with("bias") { 0.25 } else { 1.0 }; 4]))?;
/// assert_eq!((report.parameters, report.tensor_bytes), (8, 16));
/// assert_eq!(Checkpoint::open(dir)?.read_f32("ln_f.bias")?.values, [0.25; 4]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SafetensorsExport {
    dir: PathBuf,
    dtype: ExportDType,
    max_shard_bytes: u64,
}

impl SafetensorsExport {
    /// Creates an export to a model directory, in `F32` and in shards of at most [`DEFAULT_MAX_SHARD_BYTES`].
    pub fn new(dir: impl AsRef<Path>) -> Self {
        Self {
            dir: dir.as_ref().to_path_buf(),
            dtype: ExportDType::default(),
            max_shard_bytes: DEFAULT_MAX_SHARD_BYTES,
        }
    }

    /// Sets the element type.
    pub fn with_dtype(mut self, dtype: ExportDType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Sets the limit for the tensors of one file, in bytes. A larger tensor gets a file of its own.
    pub fn with_max_shard_bytes(mut self, bytes: u64) -> Self {
        self.max_shard_bytes = bytes;
        self
    }

    /// Writes the tensors of `plan`, given by name and shape; `produce` returns the values of one tensor at a time.
    ///
    /// Each name is requested once, in sorted order, so only one tensor needs to be in memory. The directory is
    /// created if it is missing. Files get their names after all of them are written to disk; an error on the way
    /// leaves the directory unchanged. Files of an earlier export that a reader would take for a part of this one, or
    /// prefer to it, are removed at the end.
    ///
    /// # Errors
    /// [`ModelError::Export`] if two tensors have one name, [`ModelError::TensorShape`] if `produce` returns another
    /// number of values than the shape has, [`ModelError::TensorOverflow`] if a value does not fit in the element
    /// type, [`ModelError::Io`], and the errors of `produce`.
    pub fn write(
        &self,
        plan: &[(String, Vec<usize>)],
        mut produce: impl FnMut(&str) -> Result<Vec<f32>, ModelError>,
    ) -> Result<ExportReport, ModelError> {
        let shapes = plan.iter().map(|(name, shape)| (&name[..], &shape[..]));
        let tensors = plan_tensors(&self.dir, shapes, self.dtype)?;
        let shards = split(&tensors, self.max_shard_bytes);
        std::fs::create_dir_all(&self.dir).map_err(ModelError::io(&self.dir))?;

        let mut report = ExportReport {
            files: Vec::new(),
            tensors: tensors.len(),
            parameters: tensors.iter().map(|tensor| tensor.elements as u64).sum(),
            tensor_bytes: tensors.iter().map(|tensor| tensor.bytes as u64).sum(),
            file_bytes: 0,
        };
        let mut weight_map = BTreeMap::new();
        let mut written = Vec::new();
        for (number, shard) in shards.iter().enumerate() {
            let name = file_name(number, shards.len());
            let path = self.dir.join(&name);
            let mut values = |tensor: &str| produce(tensor).map(Cow::Owned);
            let (file, bytes) = write_file(&path, shard, self.dtype, &mut values)?;
            written.push(file);
            report.file_bytes += bytes;
            report.files.push(path);
            weight_map.extend(shard.iter().map(|tensor| (tensor.name, name.clone())));
        }
        for file in written {
            file.commit()?;
        }
        if shards.len() > 1 {
            let path = self.dir.join(SAFETENSORS_INDEX);
            let index = serde_json::json!({
                "metadata": {
                    "total_parameters": report.parameters,
                    "total_size": report.tensor_bytes,
                },
                "weight_map": weight_map,
            });
            write_file_atomically(&path, Overwrite::Replace, |file| {
                writeln!(file, "{index:#}")
            })?;
            report.files.push(path);
        }
        remove_stale(&self.dir, &report.files)?;
        Ok(report)
    }
}

/// Files and sizes of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// Written files, the index of the shards last.
    pub files: Vec<PathBuf>,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements.
    pub parameters: u64,
    /// Size of the elements in bytes.
    pub tensor_bytes: u64,
    /// Length of the files that hold tensors, in bytes.
    pub file_bytes: u64,
}

/// Assigns tensors to shards, in order. Even without tensors there is one shard.
fn split<'p, 'a>(tensors: &'p [PlannedTensor<'a>], max_bytes: u64) -> Vec<&'p [PlannedTensor<'a>]> {
    let mut shards = Vec::new();
    let mut start = 0;
    let mut bytes = 0u64;
    for (at, tensor) in tensors.iter().enumerate() {
        if at > start && bytes.saturating_add(tensor.bytes as u64) > max_bytes {
            shards.push(&tensors[start..at]);
            start = at;
            bytes = 0;
        }
        bytes += tensor.bytes as u64;
    }
    shards.push(&tensors[start..]);
    shards
}

/// Returns the name of shard `number` of `count`, counted from 0, as `huggingface_hub` writes it.
fn file_name(number: usize, count: usize) -> String {
    if count == 1 {
        SAFETENSORS.to_string()
    } else {
        format!("model-{:05}-of-{count:05}.safetensors", number + 1)
    }
}

/// Removes what an earlier export left in the directory: readers prefer a `model.safetensors` to an index, and shards
/// that no index names waste space.
fn remove_stale(dir: &Path, written: &[PathBuf]) -> Result<(), ModelError> {
    for entry in std::fs::read_dir(dir).map_err(ModelError::io(dir))? {
        let path = entry.map_err(ModelError::io(dir))?.path();
        let name = layout::file_name(&path);
        let ours = name == SAFETENSORS || name == SAFETENSORS_INDEX || is_shard_name(&name);
        let kept = |path: &PathBuf| layout::file_name(path) == name;
        if ours && !written.iter().any(kept) {
            std::fs::remove_file(&path).map_err(ModelError::io(&path))?;
        }
    }
    Ok(())
}

/// True if a name is one that [`file_name`] gives to a shard.
fn is_shard_name(name: &str) -> bool {
    let numbers = name
        .strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"))
        .and_then(|rest| rest.split_once("-of-"));
    let five_digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    numbers.is_some_and(|(number, count)| five_digits(number) && five_digits(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, CheckpointSource};

    fn plan() -> Vec<(String, Vec<usize>)> {
        [("c", 4), ("a", 2), ("b", 3), ("d", 20)]
            .map(|(n, e)| (n.to_string(), vec![e]))
            .to_vec()
    }

    fn values(name: &str) -> Result<Vec<f32>, ModelError> {
        let elements = plan().into_iter().find(|(n, _)| n == name).unwrap().1[0];
        Ok((0..elements)
            .map(|i| i as f32 + f32::from(name.as_bytes()[0]))
            .collect())
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_large_checkpoint_is_split_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        // 8 + 12 bytes, then 16, then 80 that exceed the limit alone.
        let export = SafetensorsExport::new(dir.path()).with_max_shard_bytes(24);
        let mut asked = Vec::new();
        let report = export
            .write(&plan(), |name| {
                asked.push(name.to_string());
                values(name)
            })
            .unwrap();
        assert_eq!(asked, ["a", "b", "c", "d"]);
        assert_eq!(
            names(dir.path()),
            [
                "model-00001-of-00003.safetensors",
                "model-00002-of-00003.safetensors",
                "model-00003-of-00003.safetensors",
                "model.safetensors.index.json"
            ]
        );
        assert_eq!(
            (report.tensors, report.parameters, report.tensor_bytes),
            (4, 29, 116)
        );
        let index = std::fs::read(dir.path().join(SAFETENSORS_INDEX)).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        assert_eq!(index["metadata"]["total_size"], 116);
        assert_eq!(index["weight_map"]["c"], "model-00002-of-00003.safetensors");
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.source(), CheckpointSource::SafetensorsShards);
        assert_eq!(checkpoint.file_bytes(), report.file_bytes);
        for (name, _) in plan() {
            assert_eq!(
                checkpoint.read_f32(&name).unwrap().values,
                values(&name).unwrap()
            );
        }
    }

    #[test]
    fn an_export_replaces_an_earlier_one_of_another_number_of_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), b"{}").unwrap();
        let export = SafetensorsExport::new(dir.path());
        export.write(&plan(), values).unwrap();
        export
            .clone()
            .with_max_shard_bytes(24)
            .write(&plan(), values)
            .unwrap();
        assert!(!dir.path().join(SAFETENSORS).exists());
        export.write(&plan(), values).unwrap();
        assert_eq!(names(dir.path()), ["config.json", SAFETENSORS]);
    }

    #[test]
    fn an_error_half_way_leaves_the_directory_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let export = SafetensorsExport::new(dir.path()).with_max_shard_bytes(24);
        let result = export.write(&plan(), |name| match name {
            "d" => Err(ModelError::Generation {
                message: "stopped".into(),
            }),
            _ => values(name),
        });
        assert!(matches!(result, Err(ModelError::Generation { .. })));
        let result = export.write(&plan(), |_| Ok(vec![0.0; 2]));
        assert!(matches!(result, Err(ModelError::TensorShape { name, .. }) if name == "b"));
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_model_can_be_exported_over_the_files_it_is_read_from() {
        let dir = tempfile::tempdir().unwrap();
        let export = SafetensorsExport::new(dir.path());
        export.write(&plan(), values).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        export
            .write(&plan(), |name| Ok(checkpoint.read_f32(name)?.values))
            .unwrap();
        assert_eq!(
            checkpoint.read_f32("a").unwrap().values,
            values("a").unwrap()
        );
        let again = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(again.read_f32("d").unwrap().values, values("d").unwrap());
    }
}
