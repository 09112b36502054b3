//! Vocabularies that an adapter brings: its embeddings in the place of the base's, and rows for new tokens.
//!
//! PEFT loads such an adapter on a base that was resized before. Here the base is resized while the adapter is loaded, and a note of
//! the attach report says so.

use crate::error::ModelError;
use crate::targets::{LoraTargets, NewVocabulary, Vocabulary};
use crate::weights::on_host;
use lora_core::file::{AdapterDir, BaseWeight, PREFIX, StoredTensor, WEIGHTS_FILE};
use lora_core::{LoraConfig, LoraEmbedding, LoraError, SplitWeight};

/// A model with what an adapter brings for its base.
pub(crate) struct Prepared<M> {
    pub model: M,
    /// Configuration of the adapter, for this model.
    pub config: LoraConfig,
    /// Weights of the file that replaced others, which are saved with the adapter.
    pub kept: Vec<BaseWeight>,
    /// What was done, for people.
    pub notes: Vec<String>,
}

/// Puts the weights over the vocabulary of an adapter file in the place of the model's, and adds rows for its tokens.
///
/// # Errors
/// If the file's weights do not fit the model or each other.
pub(crate) fn with_weights_of<M: LoraTargets>(
    model: M,
    adapter: &AdapterDir,
    config: LoraConfig,
) -> Result<Prepared<M>, ModelError> {
    let mut prepared = Prepared {
        model,
        config,
        kept: Vec::new(),
        notes: Vec::new(),
    };
    let Some(own) = prepared.model.vocabulary() else {
        return Ok(prepared);
    };
    let architecture = prepared.model.lora_architecture();
    let weights = adapter.base_weights(&architecture)?;
    let trained = saved_input(adapter, &architecture.vocabulary, &prepared.config)?;
    prepared.config.ensure_weight_tying &= own.tied
        && is_tied_in(
            adapter,
            &weights,
            &architecture.vocabulary,
            trained.as_ref(),
        )?;
    let rows = rows_for(adapter, &weights, trained.as_ref(), &own)?;
    let mut new = NewVocabulary {
        rows,
        ..NewVocabulary::default()
    };
    let mut replaced = rows != own.rows;
    for weight in &weights {
        let tensor = adapter.read_weight(weight)?;
        let is_input = architecture.vocabulary.first() == Some(&weight.module);
        // A tied output layer is the embedding: PEFT writes to both when it writes to one.
        let place = if is_input || own.tied {
            &mut new.input
        } else {
            &mut new.output
        };
        // The original of a trained embedding is used by a tied output layer alone, which PEFT fills last.
        let yields = trained.is_some() && !is_input;
        if !yields && place.as_ref().is_some_and(|other| *other != tensor.values) {
            let message = format!(
                "`{}` differs from the input embedding in the file, but the base has one matrix for both (`tie_word_embeddings`)",
                weight.tensor
            );
            return Err(malformed(adapter, message));
        }
        *place = Some(tensor.values);
    }
    if !replaced {
        let differs = |new: &Option<Vec<f32>>, values: Vec<f32>| {
            new.as_ref().is_some_and(|new| *new != values)
        };
        if new.input.is_some() {
            replaced |= differs(&new.input, prepared.model.vocabulary_values(true)?);
        }
        if new.output.is_some() {
            replaced |= differs(&new.output, prepared.model.vocabulary_values(false)?);
        }
    }
    if !replaced {
        return Ok(prepared);
    }
    prepared.notes = notes(&weights, &own, rows);
    prepared.model = prepared.model.with_vocabulary(new)?;
    prepared.kept = weights;
    Ok(prepared)
}

/// Returns the number of tokens of a model once an adapter is loaded on it. No value is read.
pub(crate) fn rows_with<M: LoraTargets>(
    model: &M,
    adapter: &AdapterDir,
) -> Result<Option<usize>, ModelError> {
    let Some(own) = model.vocabulary() else {
        return Ok(None);
    };
    let architecture = model.lora_architecture();
    let weights = adapter.base_weights(&architecture)?;
    let trained = saved_input(adapter, &architecture.vocabulary, adapter.config()?)?;
    rows_for(adapter, &weights, trained.as_ref(), &own).map(Some)
}

/// Returns the fully trained input embedding of the file.
fn saved_input(
    adapter: &AdapterDir,
    vocabulary: &[String],
    config: &LoraConfig,
) -> Result<Option<(String, Vec<usize>)>, ModelError> {
    let Some(input) = vocabulary.first() else {
        return Ok(None);
    };
    let name = format!("{PREFIX}{input}.weight");
    let shape = adapter.tensors()?.shape(&name).map(<[usize]>::to_vec);
    let is_saved = config
        .modules_to_save
        .iter()
        .any(|entry| saves(entry, input));
    Ok(shape.filter(|_| is_saved).map(|shape| (name, shape)))
}

/// Returns true if the file has the trained embedding for both ends: it was trained with `ensure_weight_tying`.
fn is_tied_in(
    adapter: &AdapterDir,
    weights: &[BaseWeight],
    vocabulary: &[String],
    trained: Option<&(String, Vec<usize>)>,
) -> Result<bool, ModelError> {
    let output = weights
        .iter()
        .find(|w| Some(&w.module) == vocabulary.get(1));
    let (Some((name, _)), Some(output)) = (trained, output) else {
        return Ok(false);
    };
    let input: StoredTensor = adapter.tensors()?.read(name)?;
    Ok(adapter.read_weight(output)? == input)
}

/// Returns the number of tokens that the adapter was trained with.
fn rows_for(
    adapter: &AdapterDir,
    weights: &[BaseWeight],
    trained: Option<&(String, Vec<usize>)>,
    own: &Vocabulary,
) -> Result<usize, ModelError> {
    let of_weights = weights.iter().map(|w| (&w.tensor, &w.shape));
    let of_trained = trained.iter().map(|(name, shape)| (name, shape));
    let mut found = None;
    for (name, shape) in of_weights.chain(of_trained) {
        // Rows are allocated in the width of the model: a file must have values for all of them.
        match shape.as_slice() {
            &[rows, d] if d == own.d && found.is_none_or(|other| other == rows) => {
                found = Some(rows);
            }
            _ => {
                return Err(ModelError::Lora(LoraError::TensorShape {
                    path: adapter.path().join(WEIGHTS_FILE),
                    name: name.clone(),
                    expected: vec![found.unwrap_or(own.rows), own.d],
                    found: shape.clone(),
                }));
            }
        }
    }
    if let Some(rows) = found {
        return Ok(rows);
    }
    let tokens = adapter
        .largest_token()?
        .map_or(0, |id| id.saturating_add(1));
    if tokens > own.most_rows() {
        let message = format!(
            "token {} of `trainable_token_indices` is far beyond the {} tokens of the base: it belongs to another model",
            tokens - 1,
            own.rows
        );
        return Err(malformed(adapter, message));
    }
    Ok(own.rows.max(tokens))
}

fn notes(weights: &[BaseWeight], own: &Vocabulary, rows: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if rows != own.rows {
        notes.push(format!(
            "the vocabulary of the base was resized from {} to {rows} tokens, as the adapter was trained",
            own.rows
        ));
    }
    let names: Vec<String> = weights.iter().map(|w| format!("`{}`", w.module)).collect();
    if !names.is_empty() {
        let names = names.join(" and ");
        notes.push(format!(
            "{names} of the adapter's file replaced that of the base"
        ));
    }
    notes
}

fn malformed(adapter: &AdapterDir, message: String) -> ModelError {
    ModelError::Lora(LoraError::Malformed {
        path: adapter.path().join(WEIGHTS_FILE),
        message,
    })
}

/// Returns true if an entry of `modules_to_save` saves a module: it names it, or a module around it.
pub(crate) fn saves(entry: &str, module: &str) -> bool {
    let rest = module.strip_suffix(entry);
    let names = rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    names || module.starts_with(&format!("{entry}.")) || module.contains(&format!(".{entry}."))
}

/// Returns the values of an embedding, `[rows, d]`, also if it is packed or in parts.
pub(crate) fn values_of(name: &str, embedding: &LoraEmbedding) -> Result<Vec<f32>, ModelError> {
    if let Some(packed) = embedding.packed() {
        return on_host(name, packed.dequantize());
    }
    if let Some(split) = embedding.weight.reparameterization::<SplitWeight>() {
        let parts = split.parts().into_iter().map(|part| on_host(name, part));
        return Ok(parts.collect::<Result<Vec<_>, _>>()?.concat());
    }
    on_host(name, embedding.weight.base())
}

/// Returns rows in another number: those at the end are left out, or added with the mean of all rows.
///
/// New rows of transformers' `resize_token_embeddings` are random values around the same mean, with a covariance that is a billionth of
/// that of the rows.
pub(crate) fn resized(mut values: Vec<f32>, d: usize, rows: usize) -> Vec<f32> {
    let own = values.len() / d.max(1);
    if rows > own && own > 0 {
        let mut mean = vec![0.0f64; d];
        for row in values.chunks_exact(d) {
            let sums = mean.iter_mut().zip(row);
            sums.for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let mean: Vec<f32> = mean.iter().map(|sum| (sum / own as f64) as f32).collect();
        (own..rows).for_each(|_| values.extend_from_slice(&mean));
    }
    values.truncate(rows * d);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_rows_are_the_mean_and_rows_at_the_end_go_first() {
        let values = vec![1.0, -2.0, 4.0, 8.0];
        let more = resized(values.clone(), 2, 4);
        assert_eq!(more, [1.0, -2.0, 4.0, 8.0, 2.5, 3.0, 2.5, 3.0]);
        assert_eq!(resized(values.clone(), 2, 1), [1.0, -2.0]);
        assert_eq!(resized(values.clone(), 2, 2), values);
    }

    #[test]
    fn an_entry_saves_a_module_by_its_end_or_from_around() {
        for entry in ["wte", "transformer.wte", "transformer"] {
            assert!(saves(entry, "transformer.wte"), "{entry}");
        }
        assert!(saves("embeddings", "roberta.embeddings.word_embeddings"));
        for entry in ["te", "lm_head", "wpe", "trans"] {
            assert!(!saves(entry, "transformer.wte"), "{entry}");
        }
    }
}
