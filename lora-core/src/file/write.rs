//! A stored adapter, written as a PEFT directory.

use super::adapter::{StoredAdapter, StoredTensor};
use super::config::CONFIG_FILE;
use super::tensors::{PREFIX, TensorRole, WEIGHTS_FILE, tensor_name};
use crate::error::LoraError;
use crate::files::{Overwrite, write_dir, write_file};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::Path;

impl StoredAdapter {
    /// Writes a PEFT directory, atomically.
    ///
    /// # Errors
    /// [`LoraError::AlreadyExists`] if the directory exists and may not be replaced, or [`LoraError::Io`].
    pub fn save(&self, dir: &Path, overwrite: Overwrite) -> Result<(), LoraError> {
        let weights = self.weights(dir)?;
        write_dir(dir, overwrite, |dir| self.put(dir, &weights))
    }

    /// Writes the files into an existing directory that is being filled.
    pub(crate) fn save_into(&self, dir: &Path) -> Result<(), LoraError> {
        self.put(dir, &self.weights(dir)?)
    }

    /// Returns all tensors by their name in PEFT's file.
    pub fn tensors(&self) -> Vec<(String, &StoredTensor)> {
        let mut tensors = Vec::new();
        for (module, factors) in &self.modules {
            let roles = [
                (TensorRole::A, Some(&factors.a)),
                (TensorRole::B, Some(&factors.b)),
                (TensorRole::Magnitude, factors.magnitude.as_ref()),
                (TensorRole::Bias, factors.bias.as_ref()),
            ];
            let present = roles.into_iter().filter_map(|(role, tensor)| {
                Some((tensor_name(module, role, factors.kind), tensor?))
            });
            tensors.extend(present);
        }
        let saved = self.saved.iter();
        tensors.extend(saved.map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor)));
        tensors
    }

    /// Returns the content of the file with the tensors, for the directory `dir`.
    fn weights(&self, dir: &Path) -> Result<Vec<u8>, LoraError> {
        let malformed = |error: safetensors::SafeTensorError| LoraError::Malformed {
            path: dir.join(WEIGHTS_FILE),
            message: error.to_string(),
        };
        let tensors = self.tensors().into_iter().map(|(name, tensor)| {
            let bytes = tensor.values.iter().flat_map(|value| value.to_le_bytes());
            (name, tensor.shape.clone(), bytes.collect::<Vec<u8>>())
        });
        let tensors: Vec<_> = tensors.collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes)?;
            Ok((name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
        let mut metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        metadata.extend(self.metadata.clone());
        safetensors::serialize(views, Some(metadata)).map_err(malformed)
    }

    /// Writes the files: the configuration first, the tensors last.
    fn put(&self, dir: &Path, weights: &[u8]) -> Result<(), LoraError> {
        let put = |name: &str, bytes: &[u8]| {
            write_file(&dir.join(name), Overwrite::Refuse, |w| w.write_all(bytes))
        };
        put(
            CONFIG_FILE,
            format!("{:#}\n", self.config_json()).as_bytes(),
        )?;
        for (name, bytes) in &self.options.companions {
            put(name, bytes)?;
        }
        put(WEIGHTS_FILE, weights)
    }
}
