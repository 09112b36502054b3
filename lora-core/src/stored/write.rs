//! Writing an adapter as a PEFT directory.

use super::{StoredAdapter, StoredTensor};
use crate::error::LoraError;
use crate::files::{Overwrite, write_dir, write_file};
use crate::layout::LayerKind;
use crate::peft::CONFIG_FILE;
use crate::peft::json::to_json;
use crate::peft::tensors::{PREFIX, WEIGHTS_FILE};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::path::Path;

impl StoredAdapter {
    /// Writes it as a PEFT directory, atomically.
    ///
    /// # Errors
    /// [`LoraError::AlreadyExists`] if the directory is there and may not be replaced, or
    /// [`LoraError::Io`].
    pub fn save(&self, dir: &Path, overwrite: Overwrite) -> Result<(), LoraError> {
        let files = self.files(dir)?;
        write_dir(dir, overwrite, |dir| put(dir, &files))
    }

    /// Puts its files into a directory that is being filled; `dir` is there.
    pub(crate) fn save_into(&self, dir: &Path) -> Result<(), LoraError> {
        put(dir, &self.files(dir)?)
    }

    /// Its files by name, for the directory `dir`: the configuration first, the tensors last.
    pub(crate) fn files(&self, dir: &Path) -> Result<Vec<(String, Vec<u8>)>, LoraError> {
        let tensors: Vec<(String, &StoredTensor, Vec<u8>)> = self
            .tensors()
            .into_iter()
            .map(|(name, tensor)| {
                let bytes = tensor.values.iter().flat_map(|value| value.to_le_bytes());
                (name, tensor, bytes.collect())
            })
            .collect();
        let malformed = |error: safetensors::SafeTensorError| LoraError::Malformed {
            path: dir.join(WEIGHTS_FILE),
            message: error.to_string(),
        };
        let views = tensors.iter().map(|(name, tensor, bytes)| {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
            view.map(|view| (name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
        let mut metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        metadata.extend(self.metadata.clone());
        let weights = safetensors::serialize(views, Some(metadata)).map_err(malformed)?;
        let config = format!("{:#}\n", to_json(self)).into_bytes();
        let mut files = vec![(CONFIG_FILE.to_string(), config)];
        files.extend(self.options.companions.iter().cloned());
        files.push((WEIGHTS_FILE.to_string(), weights));
        Ok(files)
    }

    /// All tensors by their name in PEFT's file.
    pub fn tensors(&self) -> Vec<(String, &StoredTensor)> {
        let mut tensors = Vec::new();
        for (module, factors) in &self.modules {
            let [a, b] = match factors.kind {
                LayerKind::Linear => ["lora_A.weight", "lora_B.weight"],
                LayerKind::Embedding => ["lora_embedding_A", "lora_embedding_B"],
            };
            let named = [
                (a, Some(&factors.a)),
                (b, Some(&factors.b)),
                ("lora_magnitude_vector", factors.magnitude.as_ref()),
                ("lora_B.bias", factors.bias.as_ref()),
            ];
            let present = named
                .into_iter()
                .filter_map(|(name, tensor)| Some((name, tensor?)));
            tensors
                .extend(present.map(|(name, tensor)| (format!("{PREFIX}{module}.{name}"), tensor)));
        }
        let saved = self.saved.iter();
        tensors.extend(saved.map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor)));
        tensors
    }
}

fn put(dir: &Path, files: &[(String, Vec<u8>)]) -> Result<(), LoraError> {
    files.iter().try_for_each(|(name, bytes)| {
        write_file(&dir.join(name), Overwrite::Refuse, |w| w.write_all(bytes))
    })
}
