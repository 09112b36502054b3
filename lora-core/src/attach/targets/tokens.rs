//! The rows of single tokens that are trained: PEFT's `trainable_token_indices`.

use crate::config::{LoraConfig, TrainableTokens, closest};
use crate::error::LoraError;
use crate::layout::{
    AdaptedModule, Architecture, LayerKind, Matrix, SavedParameter, TokenModule, ends_in,
};

/// Resolves the tokens of a configuration to matrices over the vocabulary.
///
/// An output layer that is tied to the embedding follows it: an entry for it with the same tokens is that of the embedding.
pub(super) fn resolve(
    matrices: &[Matrix],
    config: &LoraConfig,
    architecture: &Architecture,
    targets: &[AdaptedModule],
    saved: &[SavedParameter],
) -> Result<Vec<TokenModule>, LoraError> {
    let mut found: Vec<TokenModule> = Vec::new();
    for tokens in &config.token_indices {
        let Some(matrix) = matrix_of(matrices, architecture, tokens)? else {
            continue;
        };
        let module = &matrix.module;
        let refuse = |message: String| Err(LoraError::unsupported_target(module, message));
        let by_column = matrix.kind == LayerKind::Linear;
        let rows = matrix.shape[usize::from(by_column)];
        if let Some(id) = tokens.ids.iter().find(|&&id| id >= rows) {
            return refuse(format!(
                "has no row for token {id} of the token indices: it has {rows} rows"
            ));
        }
        if targets.iter().any(|t| t.parameter == matrix.parameter)
            || saved.iter().any(|s| s.parameter == matrix.parameter)
        {
            let message = "has trained tokens, and is a target or fully trained too; name it once";
            return refuse(message.into());
        }
        if found.iter().any(|t| t.parameter == matrix.parameter) {
            return refuse("is named twice among the token indices; name it once".into());
        }
        found.push(TokenModule {
            module: module.clone(),
            parameter: matrix.parameter.clone(),
            ids: tokens.ids.clone(),
            shape: matrix.shape,
            by_column,
        });
    }
    Ok(found)
}

/// Returns the matrix that an entry names; `None` for a tied output layer, which follows its embedding.
fn matrix_of<'a>(
    matrices: &'a [Matrix],
    architecture: &Architecture,
    tokens: &TrainableTokens,
) -> Result<Option<&'a Matrix>, LoraError> {
    let input = architecture.vocabulary.first().map(String::as_str);
    let entry = tokens.module.as_deref().or(input);
    // Without a known architecture the input embedding is the first embedding.
    let matrix = match entry {
        Some(entry) => matrices.iter().find(|m| ends_in(&m.module, entry)),
        None => matrices.iter().find(|m| m.kind == LayerKind::Embedding),
    };
    let is_vocabulary = |entry: &str| architecture.vocabulary.iter().any(|m| ends_in(m, entry));
    match (matrix, entry) {
        (Some(matrix), _) if matrix.kind == LayerKind::Embedding => Ok(Some(matrix)),
        (Some(matrix), Some(entry)) if is_vocabulary(entry) => Ok(Some(matrix)),
        (None, Some(entry)) if is_vocabulary(entry) => Ok(None),
        _ => Err(LoraError::NoMatch {
            what: "module of token indices",
            entry: entry.unwrap_or("the input embedding").into(),
            candidates: closest(
                entry.unwrap_or_default(),
                matrices
                    .iter()
                    .filter(|m| m.kind == LayerKind::Embedding)
                    .map(|m| m.module.as_str()),
            ),
        }),
    }
}
