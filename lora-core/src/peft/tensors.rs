//! Names, shapes and layouts of an adapter's tensors in a PEFT file.

use crate::layout::{AdaptedModule, FusedLayout, LayerKind, Slices};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What every tensor name of a PEFT adapter starts with.
pub const PREFIX: &str = "base_model.model.";
/// Name of the file with the tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Key of the file's metadata that says which adapters are sliced.
pub(crate) const SLICES_KEY: &str = "lora_core.slices";
/// Key of the file's metadata that says how the factors started, where each is followed by its start:
/// the adapter is their difference.
pub(crate) const INIT_KEY: &str = "lora_core.init";

/// What of an adapter a tensor holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// `Aᵀ` `[r, d_in]`.
    A,
    /// `Bᵀ` `[d_out, r]`.
    B,
    /// DoRA's magnitude `[d_out]`.
    Magnitude,
    /// The bias on `B`, `[d_out]`.
    Bias,
}

/// A tensor that the file holds of an adapter.
#[derive(Debug)]
pub(crate) struct FileTensor {
    pub part: Part,
    pub name: String,
    pub shape: Vec<usize>,
}

/// The tensors of a module's adapter, which has this rank in the file.
pub(crate) fn file_tensors(module: &AdaptedModule, rank: usize) -> Vec<FileTensor> {
    let [d_in, d_out] = module.shape;
    let linear = module.kind == LayerKind::Linear;
    let tensor = |part, suffix: &str, shape: &[usize]| FileTensor {
        part,
        name: format!("{PREFIX}{}.{suffix}", module.module),
        shape: shape.to_vec(),
    };
    let [a, b] = match linear {
        true => ["lora_A.weight", "lora_B.weight"],
        false => ["lora_embedding_A", "lora_embedding_B"],
    };
    let mut tensors = vec![
        tensor(Part::A, a, &[rank, d_in]),
        tensor(Part::B, b, &[d_out, rank]),
    ];
    if module.dora {
        tensors.push(tensor(Part::Magnitude, "lora_magnitude_vector", &[d_out]));
    }
    if module.bias.is_some() {
        tensors.push(tensor(Part::Bias, "lora_B.bias", &[d_out]));
    }
    tensors
}

/// Row-major `[rows, columns]` to row-major `[columns, rows]`.
pub(crate) fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut transposed = Vec::with_capacity(values.len());
    for column in 0..columns {
        transposed.extend((0..rows).map(|row| values[row * columns + column]));
    }
    transposed
}

/// Takes the blocks of a sliced adapter out of a dense `B` `[G · r, d_out]`.
///
/// `None` if there is anything but zero outside them: then it is no sliced adapter.
pub(crate) fn compact(
    dense: &[f32],
    rank: usize,
    d_out: usize,
    slices: &Slices,
) -> Option<Vec<f32>> {
    let width = d_out / slices.parts;
    let mut blocks = Vec::with_capacity(rank * width * slices.adapted.len());
    for (row, values) in dense.chunks_exact(d_out).enumerate() {
        let part = *slices.adapted.get(row / rank)?;
        let inside = (0..width).map(|column| values[slices.column(part, column, d_out)]);
        blocks.extend(inside);
        let not_zero = |values: &[f32]| values.iter().filter(|&&value| value != 0.0).count();
        if not_zero(values) != not_zero(&blocks[blocks.len() - width..]) {
            return None;
        }
    }
    Some(blocks)
}

/// Puts the blocks of a sliced `B` at their places in `[G · r, d_out]`, zeros elsewhere.
pub(crate) fn expand(blocks: &[f32], rank: usize, d_out: usize, slices: &Slices) -> Vec<f32> {
    let width = d_out / slices.parts;
    let mut dense = vec![0.0; slices.adapted.len() * rank * d_out];
    for (row, values) in blocks.chunks_exact(width).enumerate() {
        let part = slices.adapted[row / rank];
        for (column, &value) in values.iter().enumerate() {
            dense[row * d_out + slices.column(part, column, d_out)] = value;
        }
    }
    dense
}

/// The slices of a module as the metadata keeps them.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedSlices {
    pub parts: usize,
    pub adapted: Vec<usize>,
    /// The number of heads where the columns lie head by head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
}

impl From<&Slices> for SavedSlices {
    fn from(slices: &Slices) -> Self {
        Self {
            parts: slices.parts,
            adapted: slices.adapted.clone(),
            heads: match slices.layout {
                FusedLayout::PartByPart => None,
                FusedLayout::HeadByHead { heads } => Some(heads),
            },
        }
    }
}

impl SavedSlices {
    /// The slices of a projection `[d_in, d_out]`, if they can be of one.
    pub fn of(&self, d_out: usize) -> Option<Slices> {
        let ascending = self.adapted.windows(2).all(|pair| pair[0] < pair[1]);
        let within = self.adapted.last().is_some_and(|&last| last < self.parts);
        let heads = self.heads.unwrap_or(1);
        let columns = self.parts.checked_mul(heads)?;
        let divides = columns > 0 && d_out.is_multiple_of(columns);
        (ascending && within && divides).then(|| Slices {
            parts: self.parts,
            adapted: self.adapted.clone(),
            layout: match self.heads {
                None => FusedLayout::PartByPart,
                Some(heads) => FusedLayout::HeadByHead { heads },
            },
        })
    }
}

/// Slices by module path.
pub(crate) type SlicesByModule = BTreeMap<String, SavedSlices>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_turns_rows_into_columns() {
        assert_eq!(
            transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
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
        assert_eq!(expand(&[1.0, 2.0, 3.0, 4.0], 1, 6, &slices), dense);
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
        };
        let slices = saved.of(6).unwrap();
        let dense = vec![
            1.0, 0.0, 0.0, 2.0, 0.0, 0.0, //
            0.0, 0.0, 3.0, 0.0, 0.0, 4.0,
        ];
        let blocks = vec![1.0, 2.0, 3.0, 4.0];
        assert_eq!(compact(&dense, 1, 6, &slices), Some(blocks.clone()));
        assert_eq!(expand(&blocks, 1, 6, &slices), dense);
        assert!(saved.of(9).is_none());
    }
}
