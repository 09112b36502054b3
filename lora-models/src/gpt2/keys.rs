//! Names of tensors in Hugging Face files, and how their layouts differ from ours.
//!
//! The fields of the modules are named as in Python, so little is left to map:
//!
//! | here | in the file |
//! | --- | --- |
//! | `….ln_1.gamma`, `….ln_1.beta` (also `ln_2`, `ln_f`) | `….ln_1.weight`, `….ln_1.bias` |
//! | `lm_head.weight` `[d_model, vocab]` | `lm_head.weight` `[vocab, d_model]` |
//! | everything else, `Conv1D` weights `[in, out]` among it | the same name and layout |
//!
//! The bare `GPT2Model` is saved without the prefix `transformer.`; old files hold the causal mask
//! as buffers `….attn.bias` and `….attn.masked_bias`.

use super::Gpt2Config;

/// What a file of a model with a head puts before the names of the model without.
pub(super) const PREFIX: &str = "transformer.";
/// The projection to the vocabulary: the one tensor that lies the other way round in a file.
pub(super) const HEAD: &str = "lm_head.weight";
/// The token embedding.
pub(super) const EMBEDDING: &str = "transformer.wte.weight";

/// The name in a file, with the prefix, of the parameter at this path.
pub(super) fn file_name(path: &str) -> String {
    for (ours, theirs) in [(".gamma", ".weight"), (".beta", ".bias")] {
        if let Some(module) = path.strip_suffix(ours) {
            return format!("{module}{theirs}");
        }
    }
    path.to_string()
}

/// Whether a tensor of this name is a buffer of the causal mask, which is no weight.
pub(super) fn is_mask_buffer(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
}

/// Names and shapes, as in a file, of all tensors of the model but the head.
pub(super) fn trunk(config: &Gpt2Config) -> Vec<(String, Vec<usize>)> {
    let (d, inner) = (config.n_embd, config.inner());
    let mut tensors = vec![
        (EMBEDDING.to_string(), vec![config.vocab_size, d]),
        (format!("{PREFIX}wpe.weight"), vec![config.n_positions, d]),
        (format!("{PREFIX}ln_f.weight"), vec![d]),
        (format!("{PREFIX}ln_f.bias"), vec![d]),
    ];
    for layer in 0..config.n_layer {
        for (name, shape) in [
            ("ln_1.weight", vec![d]),
            ("ln_1.bias", vec![d]),
            ("attn.c_attn.weight", vec![d, 3 * d]),
            ("attn.c_attn.bias", vec![3 * d]),
            ("attn.c_proj.weight", vec![d, d]),
            ("attn.c_proj.bias", vec![d]),
            ("ln_2.weight", vec![d]),
            ("ln_2.bias", vec![d]),
            ("mlp.c_fc.weight", vec![d, inner]),
            ("mlp.c_fc.bias", vec![inner]),
            ("mlp.c_proj.weight", vec![inner, d]),
            ("mlp.c_proj.bias", vec![d]),
        ] {
            tensors.push((format!("{PREFIX}h.{layer}.{name}"), shape));
        }
    }
    tensors
}

/// Row-major `[rows, columns]` to row-major `[columns, rows]`.
///
/// In squares that fit in the first-level cache: the head of a GPT-2 is 150 MB.
pub(super) fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    const SIDE: usize = 32;
    let mut transposed = vec![0.0; values.len()];
    for row_start in (0..rows).step_by(SIDE) {
        for column_start in (0..columns).step_by(SIDE) {
            for column in column_start..(column_start + SIDE).min(columns) {
                for row in row_start..(row_start + SIDE).min(rows) {
                    transposed[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_transformers() {
        assert_eq!(
            file_name("transformer.h.3.ln_1.gamma"),
            "transformer.h.3.ln_1.weight"
        );
        assert_eq!(file_name("transformer.ln_f.beta"), "transformer.ln_f.bias");
        assert_eq!(
            file_name("transformer.h.0.attn.c_attn.bias"),
            "transformer.h.0.attn.c_attn.bias"
        );
        assert!(is_mask_buffer("transformer.h.0.attn.bias"));
        assert!(is_mask_buffer("h.0.attn.masked_bias"));
        assert!(!is_mask_buffer("h.0.attn.c_attn.bias"));
    }

    #[test]
    fn transpose_turns_rows_into_columns_across_squares() {
        let shape = [70, 33];
        let values: Vec<f32> = (0..70 * 33).map(|value| value as f32).collect();
        let transposed = transpose(&values, shape);
        for row in 0..70 {
            for column in 0..33 {
                assert_eq!(transposed[column * 70 + row], values[row * 33 + column]);
            }
        }
        assert_eq!(transpose(&transposed, [33, 70]), values);
    }
}
