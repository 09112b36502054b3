//! What the base of an adapter is known by: names and shapes of all its tensors, and the values of a few.
//!
//! An adapter on another base loads wherever the shapes of its modules fit, and says something else than it was trained
//! to. So every adapter that this crate writes notes its base in the file's metadata, where PEFT does not look, and
//! reading compares. What trains whole beside the adapter and what is an output layer is left out: it is another one
//! before and after training.

mod difference;
mod outline;

pub(crate) use outline::BaseOutline;

use crate::adapter::base_head;
use crate::error::{BaseDifference, LoraError};
use burn::module::Module;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Key of the file's metadata that says what the base is known by.
pub(crate) const BASE_KEY: &str = "lora_core.base";
/// The only form of it that there is yet; another one is passed over.
const VERSION: u32 = 1;
/// Values that are hashed of a tensor: its first rows, a mebibyte of them.
const SAMPLED_VALUES: usize = 1 << 18;
/// Most tensors whose values a file may note: comparing reads each.
const MOST_SAMPLES: usize = 16;

/// What the base of an adapter is known by.
///
/// The same for a model whatever its files are called, cut into and compressed to, as long as the values are the same in
/// f32: not after rounding to a narrower type. Of weights that [`quantize`](crate::quantize()) has packed the shape alone counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFingerprint {
    version: u32,
    /// Hash of the names and shapes of all tensors but those of `without`.
    shapes: String,
    /// Modules that are left out, as entries of `modules_to_save`.
    without: Vec<String>,
    /// Tensors whose values are known: the first and last that have an adapter, and the embedding.
    values: BTreeMap<String, Sample>,
}

/// What is known of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    /// As in the module, `[d_in, d_out]`.
    shape: Vec<usize>,
    /// Hash of its first values.
    first: String,
}

impl BaseFingerprint {
    /// That of a module with these tensors.
    ///
    /// # Errors
    /// [`LoraError::NotAttached`] if the module is not that of the outline.
    pub(crate) fn of<M: Module>(module: &M, outline: &BaseOutline) -> Result<Self, LoraError> {
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

    /// Reads the note in a file's metadata; `None` where there is none, or one of a later version.
    pub(crate) fn read(metadata: &BTreeMap<String, String>) -> Result<Option<Self>, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Some(text) = metadata.get(BASE_KEY) else {
            return Ok(None);
        };
        let malformed = |error: serde_json::Error| format!("metadata `{BASE_KEY}`: {error}");
        let of: Versioned = serde_json::from_str(text).map_err(malformed)?;
        if of.version != VERSION {
            return Ok(None);
        }
        let read: Self = serde_json::from_str(text).map_err(malformed)?;
        match read.values.len() > MOST_SAMPLES {
            true => Err(format!(
                "metadata `{BASE_KEY}` has {} tensors, at most {MOST_SAMPLES} are expected",
                read.values.len()
            )),
            false => Ok(Some(read)),
        }
    }

    /// Notes it in a file's metadata.
    pub(crate) fn note(&self, metadata: &mut BTreeMap<String, String>) {
        // Strings and numbers always have a JSON form.
        let text = serde_json::to_string(self).unwrap_or_default();
        metadata.insert(BASE_KEY.into(), text);
    }

    /// What is known of the base of both, where they do not contradict each other.
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

/// Hash of the first values of a parameter without its adapter; `None` where there is none of that path.
fn hash_of_values<M: Module>(module: &M, path: &str) -> Option<String> {
    let values = base_head(module, path, SAMPLED_VALUES)?;
    let mut hash = Sha256::new();
    for block in values.chunks(1 << 12) {
        let bytes: Vec<u8> = block.iter().flat_map(|value| value.to_le_bytes()).collect();
        hash.update(bytes);
    }
    Some(digits(hash))
}

/// The first half of a hash, which is enough to tell bases from each other.
fn digits(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
