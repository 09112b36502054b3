//! Causal language modelling with GPT-2.

mod data;
mod eval;
mod evaluator;
mod generate;
mod judge;

pub(crate) use eval::eval;
pub use generate::{GenerateOptions, SamplingOptions, generate};

use super::job::{BestBy, Evaluate, Job, Metrics};
use super::open::Base;
use super::plan::TrainPlan;
use crate::TrainError;
use crate::data::{Example, Sample, pack};
use crate::progress::Screen;
use crate::task::{CausalLm, GeneratedText};
use crate::trainer::Collate;
use data::read_examples;
use evaluator::Evaluator;
use judge::Prompts;
use lora_models::gpt2::{Gpt2LmHead, Gpt2Options};
use std::path::Path;
use std::sync::Arc;

/// Shortest example that has something to predict.
const LEAST: usize = 2;

/// Training a language model.
pub(crate) struct CausalJob {
    label_smoothing: f64,
    checkpoint_activations: bool,
    packing: bool,
    evaluator: Option<Arc<Evaluator>>,
    prompts: Prompts,
    how: Gpt2Options,
}

impl Job for CausalJob {
    type Model = Gpt2LmHead;
    type Sample = Example;
    type Task = CausalLm;

    fn new(plan: &TrainPlan, _screen: &Screen) -> Result<Self, TrainError> {
        Ok(Self {
            label_smoothing: plan.label_smoothing,
            checkpoint_activations: plan.options.checkpoint_activations,
            packing: plan.options.packing,
            evaluator: None,
            prompts: Prompts::default(),
            how: Gpt2Options {
                quantize: plan.quantize()?,
            },
        })
    }

    fn how(&self) -> Gpt2Options {
        self.how.clone()
    }

    fn encode(
        &mut self,
        plan: &TrainPlan,
        base: &Base,
        screen: &Screen,
    ) -> Result<Vec<Example>, TrainError> {
        let length = base.max_length(plan.options.max_length, LEAST)?;
        let read = |path: &Path| read_examples(path, &plan.options.reading, None, base, length);
        let data = read(&plan.data)?;
        screen.line(&format!("data      {}", data.report));
        let mut records = Vec::new();
        if let Some(path) = &plan.options.eval_data {
            let data = read(path)?;
            screen.line(&format!("eval data {}", data.report));
            let evaluator = Evaluator::new(data.examples, plan.eval_batch_size, base.pad_id())?;
            self.evaluator = Some(Arc::new(evaluator));
            records = data.records;
        }
        self.prompts = Prompts::new(plan, &records)?;
        Ok(data.examples)
    }

    fn collate(&self) -> Collate<Example> {
        match self.packing {
            true => |examples, _| pack(examples),
            false => Example::collate,
        }
    }

    fn task(&self, model: Gpt2LmHead) -> CausalLm {
        CausalLm::new(model, self.label_smoothing)
            .with_checkpointed_activations(self.checkpoint_activations)
    }

    fn model(task: &CausalLm) -> &Gpt2LmHead {
        &task.model
    }

    fn into_model(task: CausalLm) -> Gpt2LmHead {
        task.model
    }

    fn evaluator(&self) -> Option<Arc<dyn Evaluate<CausalLm>>> {
        let evaluator = self.evaluator.clone()?;
        Some(evaluator)
    }

    fn best_by(&self) -> BestBy {
        BestBy {
            metric: "loss".into(),
            higher_is_better: false,
        }
    }

    fn texts(
        &self,
        task: &CausalLm,
        base: &Base,
        screen: &mut Screen,
        when: &str,
    ) -> Result<(Metrics, Vec<GeneratedText>), TrainError> {
        self.prompts.judge(task, base, screen, when)
    }
}
