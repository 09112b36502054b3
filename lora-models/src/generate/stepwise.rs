//! Greedy choice and sampling: one token per row and step.

use super::config::{GenerationConfig, Strategy};
use super::decoder::{Decoder, rows_on_host};
use super::ngram::banned;
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
}

/// Continues prompts by [`Strategy::Greedy`] or [`Strategy::Sample`].
pub(super) fn generate<M: CausalModel>(
    model: &M,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    device: &Device,
    on_token: &mut dyn FnMut(usize, u32),
) -> Result<Vec<Generated>, ModelError> {
    let (mut decoder, mut logits) = Decoder::start(model, device, prompts, config);
    let row = |(index, prompt): (usize, &Vec<u32>)| Row {
        prompt: index,
        history: prompt.clone(),
        sampler: match config.strategy {
            Strategy::Sample(options) => Some(Sampler::new(options, index)),
            _ => None,
        },
    };
    let mut rows: Vec<Row> = prompts.iter().enumerate().map(row).collect();
    let mut results: Vec<Option<Generated>> = prompts.iter().map(|_| None).collect();

    for step in 1..=config.max_new_tokens {
        let tokens = choose(&mut rows, logits, config)?;
        let mut kept = Vec::with_capacity(rows.len());
        let mut continued = Vec::with_capacity(rows.len());
        for (at, (mut row, &token)) in rows.into_iter().zip(&tokens).enumerate() {
            on_token(row.prompt, token);
            row.history.push(token);
            let stopped = config.stop_tokens.contains(&token);
            if stopped || step == config.max_new_tokens {
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
    if config.strategy == Strategy::Greedy && config.no_repeat_ngram_size == 0 {
        // Only one number per row leaves the device.
        let tokens = logits.argmax(1).into_data();
        return Ok(tokens.iter::<i64>().map(|token| token as u32).collect());
    }
    let logits = rows_on_host(logits)?;
    let pick = |(row, mut logits): (&mut Row, Vec<f32>)| {
        for token in banned(&row.history, config.no_repeat_ngram_size) {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        match &mut row.sampler {
            Some(sampler) => sampler.draw(&logits),
            None => most_likely(&logits),
        }
    };
    Ok(rows.iter_mut().zip(logits).map(pick).collect())
}
