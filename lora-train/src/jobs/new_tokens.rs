//! Tokens that a run adds to tokenizer and embedding, and the rows that it trains for them.

use super::plan::TrainPlan;
use super::session::Base;
use crate::TrainError;
use crate::options::{TokenSource, read_tokens};
use lora_core::{LoraConfig, TrainableTokens};
use lora_models::{NewVocabulary, Pretrained};
use std::fmt;

/// Tokens to train, once a model has rows for them.
pub(crate) struct NewTokens {
    ids: Vec<usize>,
    /// Number of tokens of the model, before and after.
    rows: (usize, usize),
}

impl NewTokens {
    /// Adds the tokens of `new_tokens` to the tokenizer of a base, and counts the rows that the model needs. `model` may lack values.
    ///
    /// # Errors
    /// If the file cannot be read or names no token, or the model has no embedding that can grow.
    pub fn add<M: Pretrained>(
        plan: &TrainPlan,
        base: &mut Base,
        model: &M,
    ) -> Result<Option<Self>, TrainError> {
        let Some(option) = &plan.options.new_tokens else {
            return Ok(None);
        };
        let refuse = |message: String| TrainError::config("new_tokens", message);
        let Some(own) = model.vocabulary() else {
            let message = "needs a model with an embedding that can grow";
            return Err(refuse(message.into()));
        };
        let ids: Vec<usize> = match option {
            TokenSource::Count(count) => {
                let count = *count;
                let end = base.tokenizer.largest_id().map_or(0, |id| id as usize + 1);
                if count == 0 || count > end {
                    return Err(refuse(format!(
                        "is {count}, expected 1 to {end}, the number of tokens of the tokenizer"
                    )));
                }
                (end - count..end).collect()
            }
            TokenSource::File(path) => {
                let tokens = read_tokens(path)?;
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
        if needed > own.most_rows() {
            return Err(refuse(format!(
                "would give the model {needed} rows in place of {}: the tokenizer does not belong to it",
                own.rows
            )));
        }
        let rows = own.rows.max(needed);
        base.set_tokens(rows);
        Ok(Some(Self {
            ids,
            rows: (own.rows, rows),
        }))
    }

    /// Adds rows for the tokens to a model with values, and their ids to the configuration of its adapter.
    ///
    /// # Errors
    /// If an embedding cannot be read from the device.
    pub fn give_rows<M: Pretrained>(
        &self,
        model: M,
        lora: &mut LoraConfig,
    ) -> Result<M, TrainError> {
        lora.token_indices = vec![TrainableTokens::of_input(self.ids.clone())];
        let (own, rows) = self.rows;
        if rows == own {
            return Ok(model);
        }
        Ok(model.with_vocabulary(NewVocabulary {
            rows,
            ..NewVocabulary::default()
        })?)
    }
}

impl fmt::Display for NewTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (own, rows) = self.rows;
        write!(
            f,
            "the rows of {} tokens are trained; the vocabulary has {rows} tokens",
            self.ids.len()
        )?;
        match rows - own {
            0 => Ok(()),
            more => write!(
                f,
                ", {more} of them new, with the mean of all rows to start from"
            ),
        }
    }
}
