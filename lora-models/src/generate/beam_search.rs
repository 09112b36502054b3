//! Beam search over a batch of prompts.

use super::beam::{Beams, Complete, Rules};
use super::config::{BeamSearch, GenerationConfig};
use super::decoder::{Decoder, rows_on_host};
use super::{CausalModel, Generated};
use crate::ModelError;
use burn::tensor::Device;

/// Continues prompts by beam search. The rows of a prompt in the batch are its running beams; a prompt is read once, and
/// leaves the batch when its search ends.
pub(super) fn generate<M: CausalModel>(
    model: &M,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    search: BeamSearch,
    device: &Device,
) -> Result<Vec<Generated>, ModelError> {
    let rules = Rules { search, config };
    let (mut decoder, logits) = Decoder::start(model, device, prompts, config);
    let mut logits = rows_on_host(logits)?;
    let mut results: Vec<Option<Complete>> = prompts.iter().map(|_| None).collect();
    let mut open: Vec<(usize, Beams)> = (0..prompts.len()).map(|at| (at, Beams::new())).collect();
    // Index of the prompt that each row of the batch continues.
    let mut owners: Vec<usize> = (0..prompts.len()).collect();

    loop {
        let mut rest = logits.as_slice();
        let mut first_row = 0;
        let mut parents = Vec::with_capacity(owners.len());
        let mut new_owners = Vec::with_capacity(owners.len());
        let mut tokens = Vec::with_capacity(owners.len());
        let mut still_open = Vec::with_capacity(open.len());
        for (prompt, mut beams) in open {
            let (own, others) = rest.split_at(beams.running.len());
            rest = others;
            if beams.advance(&prompts[prompt], own, &rules) {
                for beam in &beams.running {
                    parents.push(first_row + beam.parent);
                    new_owners.push(prompt);
                    tokens.extend(beam.tokens.last());
                }
                still_open.push((prompt, beams));
            } else {
                results[prompt] = beams.finish(&rules);
            }
            first_row += own.len();
        }
        open = still_open;
        if open.is_empty() {
            break;
        }
        if new_owners == owners {
            decoder.reorder(&parents);
        } else {
            decoder.select(&parents);
        }
        owners = new_owners;
        logits = rows_on_host(decoder.step(&tokens))?;
    }
    let generated = |complete: Complete| Generated {
        tokens: complete.tokens,
        finished_by_stop: complete.stopped,
        score: Some(complete.score),
    };
    // Every search has ended, at its last step if not before.
    Ok(results.into_iter().flatten().map(generated).collect())
}
