//! Generated texts of a language model, and their scores.

use crate::TrainError;
use crate::data::{Record, ReferenceGroup, group_references};
use crate::jobs::job::Metrics;
use crate::jobs::plan::TrainPlan;
use crate::jobs::session::Base;
use crate::progress::Screen;
use crate::task::{GeneratedText, generate_texts, score_texts};
use lora_models::CausalLm;
use lora_models::generate::{BeamSearch, GenerationConfig, Strategy};

/// Returns the configuration of greedy choice or beam search, with the model's stop tokens.
pub(crate) fn generation_config(
    base: &Base,
    max_new_tokens: usize,
    beams: usize,
) -> GenerationConfig {
    let config = GenerationConfig::new(max_new_tokens)
        .with_stop_tokens(base.stop_tokens())
        .with_pad_id(base.pad_id())
        .with_pad_to_multiple_of(base.pad_to_multiple_of);
    match beams {
        0 | 1 => config,
        beams => config.with_strategy(Strategy::Beam(BeamSearch {
            beams,
            ..BeamSearch::default()
        })),
    }
}

/// Prompts of the texts before and after training.
#[derive(Default)]
pub(crate) struct Prompts {
    groups: Vec<ReferenceGroup>,
    max_new_tokens: usize,
    beams: usize,
    batch: usize,
}

impl Prompts {
    /// Selects the plan's number of prompts from the records of the evaluation data.
    pub fn new(plan: &TrainPlan, records: &[Record]) -> Result<Self, TrainError> {
        let count = plan.options.generate_prompts.unwrap_or(0);
        if count == 0 {
            return Ok(Self::default());
        }
        if plan.options.eval_data.is_none() {
            let message = "needs eval_data, whose prompts it generates for";
            return Err(TrainError::config("generate_prompts", message));
        }
        let mut groups = group_references(records)?;
        groups.truncate(count);
        Ok(Self {
            groups,
            max_new_tokens: plan.options.max_new_tokens.unwrap_or(64),
            beams: plan.options.beams.unwrap_or(1),
            batch: plan.eval_batch_size,
        })
    }

    /// Generates the texts, and scores them by their references.
    pub fn score<M: CausalLm>(
        &self,
        model: &M,
        base: &Base,
        screen: &mut Screen,
        when: &str,
    ) -> Result<(Metrics, Vec<GeneratedText>), TrainError> {
        if self.groups.is_empty() {
            return Ok(Default::default());
        }
        let rows = self.batch.min(self.groups.len()) * self.beams.max(1);
        base.limit.check_logits("eval_batch_size", rows)?;
        let config = generation_config(base, self.max_new_tokens, self.beams);
        let mut bar = screen.bar(&format!("texts {when}"), self.groups.len());
        let (tokenizer, groups) = (&base.tokenizer, &self.groups);
        let progress = |done| bar.set(done);
        let texts = generate_texts(model, tokenizer, groups, config, self.batch, progress)?;
        bar.finish();
        Ok((score_texts(&texts)?, texts))
    }
}
