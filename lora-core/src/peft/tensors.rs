//! Names, shapes and layouts of an adapter's tensors in a PEFT file.

use crate::targets::Slices;
use crate::{AdaptedModule, LayerKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What every tensor name of a PEFT adapter starts with.
pub const PREFIX: &str = "base_model.model.";
/// Name of the file with the tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Key of the file's metadata that says which adapters are sliced.
pub(crate) const SLICES_KEY: &str = "lora_core.slices";

/// Names of `A` and `B` of a module.
pub(crate) fn names(module: &AdaptedModule) -> [String; 2] {
    let suffixes = match module.kind {
        LayerKind::Linear => ["lora_A.weight", "lora_B.weight"],
        LayerKind::Embedding => ["lora_embedding_A", "lora_embedding_B"],
    };
    suffixes.map(|suffix| format!("{PREFIX}{}.{suffix}", module.module))
}

/// Shapes of `A` and `B` in the file: `[r, d_in]` and `[d_out, r]`.
pub(crate) fn file_shapes(module: &AdaptedModule) -> [[usize; 2]; 2] {
    let rank = module.total_rank();
    [[rank, module.shape[0]], [module.shape[1], rank]]
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
        let columns = part * width..(part + 1) * width;
        let outside = values[..columns.start].iter().chain(&values[columns.end..]);
        if outside.into_iter().any(|&value| value != 0.0) {
            return None;
        }
        blocks.extend_from_slice(&values[columns]);
    }
    Some(blocks)
}

/// The slices of a module as the metadata keeps them.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedSlices {
    pub parts: usize,
    pub adapted: Vec<usize>,
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
        };
        let mut dense = vec![
            1.0, 2.0, 0.0, 0.0, 0.0, 0.0, //
            0.0, 0.0, 0.0, 0.0, 3.0, 4.0,
        ];
        let blocks = compact(&dense, 1, 6, &slices);
        assert_eq!(blocks, Some(vec![1.0, 2.0, 3.0, 4.0]));
        dense[3] = 0.5;
        assert_eq!(compact(&dense, 1, 6, &slices), None);
    }
}
