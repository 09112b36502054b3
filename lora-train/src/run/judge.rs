//! How good a model is: loss on every example, and texts for some prompts.

use super::base::Base;
use super::evaluator::Evaluator;
use super::plan::TrainPlan;
use crate::TrainError;
use crate::data::{Record, ReferenceGroup, group_references};
use crate::progress::Screen;
use crate::task::{CausalLm, GeneratedText, generate_texts, score_texts};
use lora_models::generate::{BeamSearch, GenerationConfig, Strategy};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Judges a model before, during and after training, on the same examples and prompts.
pub(crate) struct Judge {
    evaluator: Option<Arc<Evaluator>>,
    groups: Vec<ReferenceGroup>,
    generation: GenerationConfig,
    batch: usize,
}

pub(crate) type Verdict = (BTreeMap<String, f64>, Vec<GeneratedText>);

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

impl Judge {
    /// `evaluator` and `records` are those of the evaluation data, if there is any.
    pub fn new(
        plan: &TrainPlan,
        base: &Base,
        evaluator: Option<Evaluator>,
        records: &[Record],
    ) -> Result<Self, TrainError> {
        let wanted = plan.options.generate_prompts.unwrap_or(0);
        if wanted > 0 && evaluator.is_none() {
            return Err(TrainError::config(
                "generate_prompts",
                "needs eval_data, whose prompts it generates for",
            ));
        }
        let mut groups = match wanted {
            0 => Vec::new(),
            _ => group_references(records)?,
        };
        groups.truncate(wanted);
        let max_new_tokens = plan.options.max_new_tokens.unwrap_or(64);
        Ok(Self {
            evaluator: evaluator.map(Arc::new),
            groups,
            generation: generation_config(base, max_new_tokens, plan.options.beams.unwrap_or(1)),
            batch: plan.eval_batch_size,
        })
    }

    /// To be shared with the training loop: the examples are there once.
    pub fn evaluator(&self) -> Option<Arc<Evaluator>> {
        self.evaluator.clone()
    }

    /// Metrics by name, and the generated texts. `known` is the loss and its kin, where they were
    /// measured on this model already.
    pub fn judge(
        &self,
        task: &CausalLm,
        base: &Base,
        screen: &mut Screen,
        when: &str,
        known: Option<BTreeMap<String, f64>>,
    ) -> Result<Verdict, TrainError> {
        let measure = known.is_none();
        let mut metrics = known.unwrap_or_default();
        let mut texts = Vec::new();
        if let (true, Some(evaluator)) = (measure, &self.evaluator) {
            let mut bar = screen.bar(&format!("loss {when}"), evaluator.len());
            metrics = evaluator.run(task, |done| bar.set(done))?.0;
            bar.finish();
        }
        if !self.groups.is_empty() {
            let mut bar = screen.bar(&format!("texts {when}"), self.groups.len());
            texts = generate_texts(
                &task.model,
                &base.tokenizer,
                &self.groups,
                &self.generation,
                self.batch,
                |done| bar.set(done),
            )?;
            bar.finish();
            metrics.extend(score_texts(&texts)?);
        }
        Ok((metrics, texts))
    }
}
