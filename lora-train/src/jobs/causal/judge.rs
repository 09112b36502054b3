//! Texts to judge a language model by.

use crate::TrainError;
use crate::data::{Record, ReferenceGroup, group_references};
use crate::jobs::job::Metrics;
use crate::jobs::open::Base;
use crate::jobs::plan::TrainPlan;
use crate::progress::Screen;
use crate::task::{CausalLm, GeneratedText, generate_texts, score_texts};
use lora_models::generate::{BeamSearch, GenerationConfig, Strategy};

/// Greedy or beam search that stops where a text ends.
pub(crate) fn generation_config(
    base: &Base,
    max_new_tokens: usize,
    beams: usize,
) -> GenerationConfig {
    let config = GenerationConfig::new(max_new_tokens)
        .with_stop_tokens(base.eos_id())
        .with_pad_id(base.pad_id());
    match beams {
        0 | 1 => config,
        beams => config.with_strategy(Strategy::Beam(BeamSearch {
            beams,
            ..BeamSearch::default()
        })),
    }
}

/// Prompts to generate for, before and after training.
#[derive(Default)]
pub(crate) struct Prompts {
    groups: Vec<ReferenceGroup>,
    max_new_tokens: usize,
    beams: usize,
    batch: usize,
}

impl Prompts {
    /// Those that the plan asks for, of the evaluation data's `records`.
    pub fn new(plan: &TrainPlan, records: &[Record]) -> Result<Self, TrainError> {
        let wanted = plan.options.generate_prompts.unwrap_or(0);
        if wanted == 0 {
            return Ok(Self::default());
        }
        if plan.options.eval_data.is_none() {
            return Err(TrainError::config(
                "generate_prompts",
                "needs eval_data, whose prompts it generates for",
            ));
        }
        let mut groups = group_references(records)?;
        groups.truncate(wanted);
        Ok(Self {
            groups,
            max_new_tokens: plan.options.max_new_tokens.unwrap_or(64),
            beams: plan.options.beams.unwrap_or(1),
            batch: plan.eval_batch_size,
        })
    }

    /// Generates, and compares with the references.
    pub fn judge(
        &self,
        task: &CausalLm,
        base: &Base,
        screen: &mut Screen,
        when: &str,
    ) -> Result<(Metrics, Vec<GeneratedText>), TrainError> {
        if self.groups.is_empty() {
            return Ok(Default::default());
        }
        let config = generation_config(base, self.max_new_tokens, self.beams);
        let mut bar = screen.bar(&format!("texts {when}"), self.groups.len());
        let (model, tokenizer) = (&task.model, &base.tokenizer);
        let texts = generate_texts(
            model,
            tokenizer,
            &self.groups,
            &config,
            self.batch,
            |done| {
                bar.set(done);
            },
        )?;
        bar.finish();
        Ok((score_texts(&texts)?, texts))
    }
}
