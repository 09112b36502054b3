//! Notes of this crate in the metadata of an adapter file, where PEFT does not look.

use crate::config::LoraInit;
use crate::error::LoraError;
use crate::fingerprint::{BASE_KEY, BaseFingerprint};
use crate::layout::{FusedLayout, Slices};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Key of the slices of adapters on fused projections.
pub(crate) const SLICES_KEY: &str = "lora_core.slices";
/// Key of the factors' initialization, present if each tensor is followed by its initial value: the adapter is the
/// difference.
pub(crate) const INIT_KEY: &str = "lora_core.init";

/// Notes of a file.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Slices by module path.
    pub slices: BTreeMap<String, SavedSlices>,
    /// Init of the factors, if the file holds their difference to their start.
    pub start: Option<LoraInit>,
    /// Fingerprint of the base model.
    pub base: Option<BaseFingerprint>,
}

impl Notes {
    /// Reads the notes of the file at `path`.
    ///
    /// # Errors
    /// [`LoraError::Malformed`] if one is malformed.
    pub fn of_file(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self, LoraError> {
        Self::read(metadata).map_err(|(key, message)| {
            LoraError::malformed(path, format!("metadata `{key}`: {message}"))
        })
    }

    /// Reads the notes.
    ///
    /// # Errors
    /// The key of a note that is malformed, and what is wrong with it.
    pub fn read(metadata: &BTreeMap<String, String>) -> Result<Self, (&'static str, String)> {
        let slices = match metadata.get(SLICES_KEY) {
            None => BTreeMap::new(),
            Some(text) => {
                serde_json::from_str(text).map_err(|error| (SLICES_KEY, error.to_string()))?
            }
        };
        let start = match metadata.get(INIT_KEY).map(|text| text.parse::<LoraInit>()) {
            None => None,
            Some(Ok(init)) if init.is_residual() => Some(init),
            Some(Ok(init)) => {
                return Err((INIT_KEY, format!("{init} is not a residual initialization")));
            }
            Some(Err(error)) => return Err((INIT_KEY, error)),
        };
        let base = BaseFingerprint::read(metadata).map_err(|message| (BASE_KEY, message))?;
        Ok(Self {
            slices,
            start,
            base,
        })
    }
}

/// Slices of a module, in the form of the note.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedSlices {
    parts: usize,
    adapted: Vec<usize>,
    /// Number of heads, if the columns lie head by head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    heads: Option<usize>,
    /// Number of heads of queries for each head of keys, if the first part is so much wider than the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sharing: Option<usize>,
}

impl From<&Slices> for SavedSlices {
    fn from(slices: &Slices) -> Self {
        Self {
            parts: slices.parts,
            adapted: slices.adapted.clone(),
            heads: match slices.layout {
                FusedLayout::HeadByHead { heads } => Some(heads),
                FusedLayout::PartByPart | FusedLayout::Grouped { .. } => None,
            },
            sharing: match slices.layout {
                FusedLayout::Grouped { sharing } => Some(sharing),
                FusedLayout::PartByPart | FusedLayout::HeadByHead { .. } => None,
            },
        }
    }
}

impl SavedSlices {
    /// Returns the slices of a projection `[d_in, d_out]`; `None` if it cannot have these.
    pub fn on(&self, d_out: usize) -> Option<Slices> {
        let ascending = self.adapted.windows(2).all(|pair| pair[0] < pair[1]);
        let within = self.adapted.last().is_some_and(|&last| last < self.parts);
        let slices = Slices {
            parts: self.parts,
            adapted: self.adapted.clone(),
            layout: match (self.heads, self.sharing) {
                (None, None) => FusedLayout::PartByPart,
                (Some(heads), None) => FusedLayout::HeadByHead { heads },
                (None, Some(sharing)) if sharing > 0 => FusedLayout::Grouped { sharing },
                _ => return None,
            },
        };
        let columns = slices.least_columns();
        let divides = columns > 0 && d_out > 0 && d_out.is_multiple_of(columns);
        (ascending && within && divides).then_some(slices)
    }
}

/// Takes the blocks of a sliced adapter out of a dense `B` `[G · r, d_out]`.
///
/// Returns `None` if there is anything but zero outside them: then it is no sliced adapter.
pub(crate) fn compact(
    dense: &[f32],
    rank: usize,
    d_out: usize,
    slices: &Slices,
) -> Option<Vec<f32>> {
    let mut blocks = Vec::with_capacity(rank * slices.widths(d_out).sum::<usize>());
    for (row, values) in dense.chunks_exact(d_out).enumerate() {
        let part = *slices.adapted.get(row / rank)?;
        let width = slices.width(part, d_out);
        let inside = (0..width).map(|column| values[slices.column(part, column, d_out)]);
        blocks.extend(inside);
        let not_zero = |values: &[f32]| values.iter().filter(|&&value| value != 0.0).count();
        if not_zero(values) != not_zero(&blocks[blocks.len() - width..]) {
            return None;
        }
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::expand;
    use burn::tensor::{Device, Tensor, TensorData};

    /// The blocks `[2, 2]` at their places in `[2, 6]`.
    fn expanded(blocks: &[f32], slices: &Slices) -> Vec<f32> {
        let data = TensorData::new(blocks.to_vec(), [2, 2]);
        let blocks = Tensor::<2>::from_data(data, &Device::flex());
        expand(blocks, slices).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn compact_takes_blocks_out_and_refuses_what_is_no_block() {
        let slices = Slices {
            parts: 3,
            adapted: vec![0, 2],
            layout: FusedLayout::PartByPart,
        };
        let mut dense = vec![
            1.0, 2.0, 0.0, 0.0, 0.0, 0.0, //
            0.0, 0.0, 0.0, 0.0, 3.0, 4.0,
        ];
        let blocks = compact(&dense, 1, 6, &slices);
        assert_eq!(blocks, Some(vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(expanded(&[1.0, 2.0, 3.0, 4.0], &slices), dense);
        dense[3] = 0.5;
        assert_eq!(compact(&dense, 1, 6, &slices), None);
    }

    #[test]
    fn blocks_are_found_head_by_head() {
        // Two heads of one column a part: q0 k0 v0 q1 k1 v1.
        let saved = SavedSlices {
            parts: 3,
            adapted: vec![0, 2],
            heads: Some(2),
            sharing: None,
        };
        let slices = saved.on(6).unwrap();
        let dense = vec![
            1.0, 0.0, 0.0, 2.0, 0.0, 0.0, //
            0.0, 0.0, 3.0, 0.0, 0.0, 4.0,
        ];
        let blocks = vec![1.0, 2.0, 3.0, 4.0];
        assert_eq!(compact(&dense, 1, 6, &slices), Some(blocks.clone()));
        assert_eq!(expanded(&blocks, &slices), dense);
        assert!(saved.on(9).is_none());
    }
}
