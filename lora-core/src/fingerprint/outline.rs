//! The tensors that a fingerprint is computed from, without their values.

use super::hash::digits;
use crate::layout::{
    AdaptedModule, Architecture, LayerKind, Parameters, SavedParameter, is_inside,
};
use crate::quantize::QuantizedModule;
use sha2::{Digest, Sha256};

/// The tensors of a base.
#[derive(Clone, Debug, Default)]
pub(crate) struct BaseOutline {
    /// All tensors, by name.
    tensors: Vec<BaseTensor>,
    /// Modules that are left out.
    pub without: Vec<String>,
    /// Tensors with hashed values.
    pub samples: Vec<BaseTensor>,
}

/// A tensor of the base.
#[derive(Clone, Debug)]
pub(crate) struct BaseTensor {
    /// Name in files.
    pub name: String,
    /// Path in the module.
    pub path: String,
    /// Shape in the module.
    pub shape: Vec<usize>,
    /// True if it is quantized or was rounded to 16 bits: only its shape is compared.
    pub rounded: bool,
}

impl BaseOutline {
    /// Collects the tensors of a base under these adapters.
    pub fn new(
        parameters: &Parameters,
        adapted: &[AdaptedModule],
        saved: &[SavedParameter],
        modules_to_save: &[String],
        architecture: &Architecture,
        quantized: &[QuantizedModule],
    ) -> Self {
        let mut tensors: Vec<BaseTensor> = parameters
            .all
            .iter()
            .map(|parameter| BaseTensor {
                name: parameter.name.clone(),
                path: parameter.path.clone(),
                shape: parameter.shape.clone(),
                rounded: (quantized.iter()).any(|q| q.parameter == parameter.path && q.rounded),
            })
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let mut without = [modules_to_save, &architecture.output_layers].concat();
        without.sort();
        without.dedup();
        let mut outline = Self {
            tensors,
            without,
            samples: Vec::new(),
        };
        let mut embeddings = parameters.matrices.iter();
        let embedding = embeddings.find(|matrix| {
            let is_saved = saved.iter().any(|s| s.parameter == matrix.parameter);
            matrix.kind == LayerKind::Embedding && !is_saved
        });
        let paths = [
            adapted.first().map(|module| &module.parameter),
            adapted.last().map(|module| &module.parameter),
            embedding.map(|matrix| &matrix.parameter),
        ];
        for path in paths.into_iter().flatten() {
            let known = outline.samples.iter().any(|sample| sample.path == *path);
            let tensor = outline.tensors.iter().find(|tensor| tensor.path == *path);
            if let (Some(tensor), false) = (tensor, known)
                && !tensor.rounded
                && outline.counts(&tensor.name, &outline.without)
            {
                outline.samples.push(tensor.clone());
            }
        }
        outline
    }

    fn counts(&self, name: &str, without: &[String]) -> bool {
        !without.iter().any(|module| is_inside(name, module))
    }

    /// Hashes the names and shapes of all tensors except those in some modules.
    pub fn shapes(&self, without: &[String]) -> String {
        let mut hash = Sha256::new();
        for tensor in &self.tensors {
            if self.counts(&tensor.name, without) {
                hash.update(format!("{} {:?}\n", tensor.name, tensor.shape));
            }
        }
        digits(hash)
    }

    /// Returns the tensor of a name.
    pub fn tensor(&self, name: &str) -> Option<&BaseTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}
