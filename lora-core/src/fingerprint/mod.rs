//! Fingerprint of the base of an adapter: names and shapes of all its tensors, and the values of a few.
//!
//! An adapter loads on any base with modules of the same shapes, but computes something else there than it was trained
//! for. So every adapter that this crate writes has the fingerprint of its base in the file's metadata, where PEFT does
//! not look, and reading compares. Fully trained modules and output layers are left out: they differ before and after
//! training.

mod difference;
mod outline;

pub(crate) use outline::BaseOutline;

use crate::adapter::base_head;
use crate::error::{BaseDifference, LoraError};
use burn::module::Module;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Key of the fingerprint in the file's metadata.
pub(crate) const BASE_KEY: &str = "lora_core.base";
/// Version of the form; a fingerprint of another version is ignored.
const VERSION: u32 = 1;
/// Number of values that are hashed of a tensor: its first rows, a mebibyte of them.
const SAMPLED_VALUES: usize = 1 << 18;
/// Most tensors with hashed values in a file: comparing reads each.
const MOST_SAMPLES: usize = 16;

/// Fingerprint of the base of an adapter.
///
/// It depends on the values in f32 and not on the files: their names, shards and types do not matter, but rounding to a
/// narrower type does. Only the shape counts of weights that [`quantize`](crate::quantize()) has packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFingerprint {
    version: u32,
    /// Hash of the names and shapes of all tensors but those of `without`.
    shapes: String,
    /// Modules that are left out, as entries of `modules_to_save`.
    without: Vec<String>,
    /// Tensors with hashed values: the first and last that have an adapter, and the embedding.
    values: BTreeMap<String, Sample>,
}

/// Fingerprint of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    /// Shape as in the module, `[d_in, d_out]`.
    shape: Vec<usize>,
    /// Hash of its first values.
    first: String,
}

impl BaseFingerprint {
    /// Computes the fingerprint of a module with these tensors.
    ///
    /// # Errors
    /// [`LoraError::NotAttached`] if the module is not that of the outline.
    pub(crate) fn of_module<M: Module>(
        module: &M,
        outline: &BaseOutline,
    ) -> Result<Self, LoraError> {
        let samples = outline.samples.iter().map(|sample| {
            let first = hash_of_values(module, &sample.path);
            let first = first.ok_or_else(|| LoraError::NotAttached {
                module: sample.name.clone(),
            })?;
            let shape = sample.shape.clone();
            Ok((sample.name.clone(), Sample { shape, first }))
        });
        Ok(Self {
            version: VERSION,
            shapes: outline.shapes(&outline.without),
            without: outline.without.clone(),
            values: samples.collect::<Result<_, LoraError>>()?,
        })
    }

    /// Reads the fingerprint in a file's metadata; `None` if there is none, or one of another version.
    ///
    /// # Errors
    /// A message if it is malformed.
    pub(crate) fn read(metadata: &BTreeMap<String, String>) -> Result<Option<Self>, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Some(text) = metadata.get(BASE_KEY) else {
            return Ok(None);
        };
        let malformed = |error: serde_json::Error| error.to_string();
        let note: Versioned = serde_json::from_str(text).map_err(malformed)?;
        if note.version != VERSION {
            return Ok(None);
        }
        let read: Self = serde_json::from_str(text).map_err(malformed)?;
        if read.values.len() > MOST_SAMPLES {
            return Err(format!(
                "has {} tensors, at most {MOST_SAMPLES} are expected",
                read.values.len()
            ));
        }
        Ok(Some(read))
    }

    /// Writes the fingerprint into a file's metadata.
    pub(crate) fn note(&self, metadata: &mut BTreeMap<String, String>) {
        // Strings and numbers always have a JSON form.
        let text = serde_json::to_string(self).unwrap_or_default();
        metadata.insert(BASE_KEY.into(), text);
    }

    /// Joins two fingerprints of one base.
    ///
    /// # Errors
    /// The difference, if they contradict each other.
    pub(crate) fn joined(mut self, other: Self) -> Result<Self, BaseDifference> {
        match self.difference(&other) {
            Some(difference) => Err(difference),
            None => {
                for (name, sample) in other.values {
                    self.values.entry(name).or_insert(sample);
                }
                Ok(self)
            }
        }
    }
}

/// Hashes the first values of a parameter without its adapter; `None` if there is none of that path.
fn hash_of_values<M: Module>(module: &M, path: &str) -> Option<String> {
    let values = base_head(module, path, SAMPLED_VALUES)?;
    let mut hash = Sha256::new();
    for block in values.chunks(1 << 12) {
        let bytes: Vec<u8> = block.iter().flat_map(|value| value.to_le_bytes()).collect();
        hash.update(bytes);
    }
    Some(digits(hash))
}

/// Returns the first half of a hash in hexadecimal, which is enough to tell bases apart.
fn digits(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
