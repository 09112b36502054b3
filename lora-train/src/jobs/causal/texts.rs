//! Generated texts of a language model, and their scores.

use super::choice::{SamplingOptions, Unsupported, generation_config};
use super::data::Examples;
use super::template::render_prompts;
use crate::TrainError;
use crate::data::{ReferenceGroup, group_references};
use crate::jobs::job::Metrics;
use crate::jobs::plan::TrainPlan;
use crate::jobs::session::Base;
use crate::progress::Screen;
use crate::task::{GeneratedText, TextScores, generate_texts};
use crate::trainer::ranks::Ranks;
use lora_models::CausalLm;

/// Prompts of the texts before and after training.
#[derive(Default)]
pub(crate) struct Prompts {
    groups: Vec<ReferenceGroup>,
    max_new_tokens: Option<usize>,
    sampling: SamplingOptions,
    scores: TextScores,
    batch: usize,
}

impl Prompts {
    /// Selects the plan's number of prompts from the evaluation data.
    ///
    /// # Errors
    /// If there is no such data, a reference cannot be scored, or a stop token is not one token.
    pub fn new(plan: &TrainPlan, data: Option<&Examples>, base: &Base) -> Result<Self, TrainError> {
        let count = plan.options.generate_prompts.unwrap_or(0);
        if count == 0 {
            return Ok(Self::default());
        }
        let Some(data) = data else {
            let message = "needs eval_data or eval_split, for whose prompts it generates";
            return Err(TrainError::config("generate_prompts", message));
        };
        let path = match &plan.options.eval_data {
            Some(path) => path,
            // Scores of a data set need the files beside it.
            None if plan.data.is_one() => plan.data.first(),
            None => {
                let message = "with eval_split needs a single file of training data, whose scores are known; give eval_data";
                return Err(TrainError::config("generate_prompts", message));
            }
        };
        let scores = TextScores::of_data(path, data.format)?;
        let mut groups = group_references(&data.records)?;
        groups.truncate(count);
        render_prompts(&mut groups, base, &plan.options.reading)?;
        scores.check(&groups)?;
        let sampling =
            SamplingOptions::of_evaluation(plan.options.beams, &plan.options.decoding, plan.seed);
        sampling.stop_ids(base)?;
        Ok(Self {
            groups,
            max_new_tokens: plan.options.max_new_tokens,
            sampling,
            scores,
            batch: plan.eval_batch_size,
        })
    }

    /// Generates the texts, and scores them by their references.
    pub fn score<M: CausalLm>(
        &self,
        model: &M,
        base: &Base,
        ranks: &dyn Ranks,
        screen: &mut Screen,
        when: &str,
    ) -> Result<(Metrics, Vec<GeneratedText>), TrainError> {
        if self.groups.is_empty() {
            return Ok(Default::default());
        }
        let (new, warn) = (self.max_new_tokens, Unsupported::Warn);
        let config = generation_config(base, &self.sampling, new, warn, screen)?;
        let rows = self
            .batch
            .min(self.groups.len())
            .saturating_mul(config.rows());
        base.limit.check_logits("eval_batch_size", rows)?;
        let mut bar = screen.bar(&format!("texts {when}"), self.groups.len());
        let (tokenizer, groups) = (&base.tokenizer, &self.groups);
        let progress = |done| bar.set(done);
        let prompts = (groups.as_slice(), self.batch);
        let texts = generate_texts(model, tokenizer, prompts, config, ranks, progress)?;
        bar.finish();
        Ok((self.scores.score(&texts)?, texts))
    }
}
