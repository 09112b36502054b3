//! Greedy choice and sampling: one token per row and step.

use super::config::{GenerationConfig, Strategy};
use super::decoder::{Decoder, rows_on_host};
use super::rules::RowRules;
use super::sample::{Sampler, most_likely};
use super::{CausalModel, Generated};
use crate::ModelError;
use burn::tensor::{Device, Tensor};

/// Row of a prompt whose text has not ended.
struct Row {
    /// Index of the prompt.
    prompt: usize,
    /// Prompt and generated tokens.
    history: Vec<u32>,
    sampler: Option<Sampler>,
    /// Length of the prompt in tokens.
    prompt_length: usize,
    /// Maximum number of tokens after the prompt.
    room: usize,
}

/// Continues prompts by [`Strategy::Greedy`] or [`Strategy::Sample`]. `first` is the index of the first prompt for its draws.
pub(super) fn generate<M: CausalModel>(
    model: &M,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    first: usize,
    device: &Device,
    on_token: &mut dyn FnMut(usize, u32),
) -> Result<Vec<Generated>, ModelError> {
    let (mut decoder, mut logits) = Decoder::start(model, device, prompts, config);
    let row = |(index, prompt): (usize, &Vec<u32>)| Row {
        prompt: index,
        history: prompt.clone(),
        sampler: match config.strategy {
            Strategy::Sample(options) => Some(Sampler::new(options, first + index)),
            _ => None,
        },
        prompt_length: prompt.len(),
        room: config.room(prompt.len()),
    };
    let mut rows: Vec<Row> = prompts.iter().enumerate().map(row).collect();
    let mut results: Vec<Option<Generated>> = prompts.iter().map(|_| None).collect();

    for step in 1.. {
        let tokens = choose(&mut rows, logits, config)?;
        let mut kept = Vec::with_capacity(rows.len());
        let mut continued = Vec::with_capacity(rows.len());
        for (at, (mut row, &token)) in rows.into_iter().zip(&tokens).enumerate() {
            on_token(row.prompt, token);
            row.history.push(token);
            let stopped = config.stop_tokens.contains(&token);
            if stopped || step >= row.room {
                let prompt = row.prompt;
                results[prompt] = Some(Generated {
                    tokens: row.history.split_off(prompts[prompt].len()),
                    finished_by_stop: stopped,
                    score: None,
                });
            } else {
                kept.push(at);
                continued.push(row);
            }
        }
        rows = continued;
        if rows.is_empty() {
            break;
        }
        if kept.len() < tokens.len() {
            decoder.select(&kept);
        }
        let tokens: Vec<u32> = kept.iter().map(|&at| tokens[at]).collect();
        logits = decoder.step(&tokens);
    }
    // Every row ends at the last step at the latest.
    Ok(results.into_iter().flatten().collect())
}

/// Chooses a token for each row of logits `[rows, vocab]`.
fn choose(
    rows: &mut [Row],
    logits: Tensor<2>,
    config: &GenerationConfig,
) -> Result<Vec<u32>, ModelError> {
    let rules = |row: &Row| RowRules {
        rules: &config.rules,
        no_repeat_ngram_size: config.no_repeat_ngram_size,
        stop_tokens: &config.stop_tokens,
        prompt: row.prompt_length,
        room: row.room,
    };
    let no_rules = rows.first().is_none_or(|row| rules(row).are_none());
    if config.strategy == Strategy::Greedy && no_rules {
        // Only one number per row leaves the device.
        let tokens = logits.argmax(1).into_data();
        return Ok(tokens.iter::<i64>().map(|token| token as u32).collect());
    }
    let logits = rows_on_host(logits)?;
    let pick = |(row, mut logits): (&mut Row, Vec<f32>)| {
        rules(row).apply(&row.history, &mut logits);
        match &mut row.sampler {
            Some(sampler) => sampler.draw(&logits),
            None => most_likely(&logits),
        }
    };
    Ok(rows.iter_mut().zip(logits).map(pick).collect())
}
