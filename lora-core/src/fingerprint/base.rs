//! The fingerprint of a base in a file's metadata: [`BaseFingerprint`].

use super::hash::hash_of_values;
use super::outline::BaseOutline;
use crate::error::{BaseDifference, LoraError};
use burn::module::Module;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Key of the fingerprint in the file's metadata.
pub(crate) const BASE_KEY: &str = "lora_core.base";
/// Version of the format. Other versions are ignored.
const VERSION: u32 = 1;
/// Limit on the number of tensors with hashed values in a file: a comparison reads each.
const MOST_SAMPLES: usize = 16;

/// Fingerprint of an adapter's base.
///
/// It depends on the values in f32 alone, not on names, shards or types of the model's files; rounding to a narrower type
/// changes it. For weights that [`quantize`](crate::quantize()) has packed, or [`narrow`](crate::narrow) has rounded, it depends on
/// the shape only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFingerprint {
    version: u32,
    /// Hash of the names and shapes of all tensors except those of `without`.
    pub(super) shapes: String,
    /// Modules that are left out, as entries of `modules_to_save`.
    pub(super) without: Vec<String>,
    /// Samples by the tensor's name: the first and last adapted tensor, and the embedding.
    pub(super) values: BTreeMap<String, Sample>,
}

/// Shape and hash of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Shape in the module, `[d_in, d_out]`.
    pub shape: Vec<usize>,
    /// Hash of the first values.
    pub first: String,
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
            let first = first.ok_or_else(|| LoraError::not_attached(&sample.name))?;
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
    pub(crate) fn read(metadata: &BTreeMap<String, String>) -> Result<Option<Self>, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Some(text) = metadata.get(BASE_KEY) else {
            return Ok(None);
        };
        let malformed = |error: serde_json::Error| error.to_string();
        let header: Versioned = serde_json::from_str(text).map_err(malformed)?;
        if header.version != VERSION {
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

    /// Writes the fingerprint to a file's metadata.
    pub(crate) fn note(&self, metadata: &mut BTreeMap<String, String>) {
        // Strings and numbers always have a JSON form.
        let text = serde_json::to_string(self).unwrap_or_default();
        metadata.insert(BASE_KEY.into(), text);
    }

    /// Joins two fingerprints of the same base.
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
