//! Tokens that a run adds to tokenizer and embedding, and the rows that it trains for them.

use super::plan::TrainPlan;
use super::session::Base;
use crate::TrainError;
use lora_core::files::read_bounded;
use lora_core::{LoraConfig, TrainableTokens};
use lora_models::{NewVocabulary, Pretrained};
use std::path::Path;

/// Maximum size of a file with tokens, in bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// Adds the tokens of `new_tokens` to the tokenizer, rows for them to the model, and their ids to the configuration. Returns the
/// model, the configuration and a line for the log.
///
/// # Errors
/// If the file cannot be read or names no token, or the model has no embedding that can grow.
pub(crate) fn add_tokens<M: Pretrained>(
    plan: &TrainPlan,
    base: &mut Base,
    model: M,
    mut lora: LoraConfig,
) -> Result<(M, LoraConfig, Option<String>), TrainError> {
    let Some(option) = &plan.options.new_tokens else {
        return Ok((model, lora, None));
    };
    let refuse = |message: String| TrainError::config("new_tokens", message);
    let Some(own) = model.vocabulary() else {
        return Err(refuse(
            "needs a model with an embedding that can grow".into(),
        ));
    };
    let ids: Vec<usize> = match option.parse::<usize>() {
        Ok(count) => {
            let end = base.tokenizer.largest_id().map_or(0, |id| id as usize + 1);
            if count == 0 || count > end {
                return Err(refuse(format!(
                    "is {count}, expected 1 to {end}, the number of tokens of the tokenizer"
                )));
            }
            (end - count..end).collect::<Vec<_>>()
        }
        Err(_) => {
            let tokens = read_tokens(Path::new(option))?;
            let (tokenizer, files) = base.tokenizer.with_tokens(&tokens)?;
            let ids = tokens
                .iter()
                .filter_map(|token| tokenizer.token_to_id(token));
            let ids = ids.map(|id| id as usize).collect();
            base.tokenizer = tokenizer;
            base.tokenizer_files = Some(files);
            ids
        }
    };
    let needed = ids.iter().max().map_or(0, |id| id + 1);
    // Ids of a file may have gaps of any size.
    if needed > own.rows.saturating_mul(2).max(1 << 16) {
        return Err(refuse(format!(
            "would give the model {needed} rows in place of {}: the tokenizer does not belong to it",
            own.rows
        )));
    }
    let rows = own.rows.max(needed);
    let model = if rows == own.rows {
        model
    } else {
        model.with_vocabulary(NewVocabulary {
            rows,
            ..NewVocabulary::default()
        })?
    };
    let line = format!(
        "the rows of {} tokens are trained; the vocabulary has {rows} tokens{}",
        ids.len(),
        match rows - own.rows {
            0 => String::new(),
            more => format!(", {more} of them new, with the mean of all rows to start from"),
        }
    );
    lora.token_indices = vec![TrainableTokens::of_input(ids)];
    Ok((model, lora, Some(line)))
}

/// Reads one token a line; the spaces around it are no part of it.
fn read_tokens(path: &Path) -> Result<Vec<String>, TrainError> {
    let bytes = read_bounded(path, FILE_LIMIT)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        TrainError::data_format(path, "is not UTF-8, expected a token in each line")
    })?;
    let mut tokens: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if tokens.iter().any(|token| token == line) {
            return Err(TrainError::data_format(path, format!("has `{line}` twice")));
        }
        tokens.push(line.into());
    }
    if tokens.is_empty() {
        return Err(TrainError::data_format(
            path,
            "has no token, expected one in each line",
        ));
    }
    Ok(tokens)
}
