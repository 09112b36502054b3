//! Training, evaluation and use of language models.
//!
//! | file | contents |
//! | --- | --- |
//! | `data`, `training`, `template` | tokenized examples of a file; those of the training data; the chat template |
//! | `token_cache` | training data in memory, or tokenized once into a file beside the run |
//! | `loss`, `answers` | loss, perplexity and accuracy; accuracy on MNLI |
//! | `evaluator`, `eval` | evaluation during training, and by itself |
//! | `choice` | choice of tokens: options, and settings that come with the model |
//! | `generate` | text generation |
//! | `chat`, `chat_input` | conversations with a model; what a user types |
//! | `texts` | generated texts and their scores |
//! | `score` | scores of the texts of a file |

mod answers;
mod chat;
mod chat_input;
mod choice;
mod data;
mod eval;
mod evaluator;
mod generate;
mod loss;
mod score;
mod template;
mod texts;
mod token_cache;
mod training;

pub use chat::{ChatOptions, Terminal, chat};
pub use choice::SamplingOptions;
pub(crate) use eval::eval;
pub use generate::{Continuation, GenerateOptions, generate, generate_with};
pub use score::{ScoreOptions, ScoreReport, score};

use super::batches::EvalBatches;
use super::job::{BestBy, Evaluate, Job, Metrics, TrainingSet};
use super::plan::TrainPlan;
use super::session::Base;
use super::sources::Sources;
use crate::TrainError;
use crate::data::{Example, Sample, UNCUT, pack};
use crate::progress::Screen;
use crate::task::{CausalLmTask, GeneratedText, TaskName};
use crate::trainer::Collate;
use crate::trainer::ranks::Ranks;
use answers::Answers;
use data::{read_examples, unread_labels};
use evaluator::CausalEvaluator;
use lora_models::{CausalLm, LoadOptions, ModelConfig, ModelError};
use std::marker::PhantomData;
use std::sync::Arc;
use texts::Prompts;
use token_cache::tokenized;
use training::TrainingData;

/// Minimum length of an example with a token to predict.
const LEAST: usize = 2;

/// Training of a language model.
pub(crate) struct CausalJob<M> {
    label_smoothing: f64,
    checkpoint_activations: bool,
    packing: bool,
    evaluator: Option<Arc<CausalEvaluator>>,
    prompts: Prompts,
    load: LoadOptions,
    model: PhantomData<fn() -> M>,
}

impl<M: CausalLm> Job for CausalJob<M> {
    type Model = M;
    type Task = CausalLmTask<M>;

    fn new(
        plan: &TrainPlan,
        sources: &Sources,
        _task: TaskName,
        _screen: &Screen,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            label_smoothing: plan.label_smoothing,
            checkpoint_activations: plan.options.checkpoint_activations,
            packing: plan.options.packing,
            evaluator: None,
            prompts: Prompts::default(),
            load: LoadOptions::default()
                .with_quantize(plan.quantize(sources)?)
                .with_floats(plan.floats(sources)?),
            model: PhantomData,
        })
    }

    fn load_options(&self) -> LoadOptions {
        self.load.clone()
    }

    fn encode(
        &mut self,
        plan: &TrainPlan,
        base: &Base,
        screen: &Screen,
    ) -> Result<TrainingSet, TrainError> {
        let length = base.max_length(plan.options.max_length, LEAST)?;
        let reading = &plan.options.reading;
        let training = TrainingData::new(plan, base)?;
        let (examples, encoded) = tokenized(&training, (plan, base), length, screen)?;
        // A chat template writes the special tokens itself.
        let is_chat = training.formats().any(|(_, format)| format.is_chat());
        if let Some(line) = base.tokens_around().filter(|_| !is_chat) {
            screen.line(&line);
        }
        for ((path, format), (report, _)) in training.formats().zip(&encoded.files) {
            screen.line(&format!("data      {}: {report}", path.display()));
            if let Some(line) = unread_labels(path, format, reading)? {
                screen.line(&line);
            }
        }
        let counts: Vec<usize> = encoded
            .files
            .iter()
            .map(|(_, examples)| *examples)
            .collect();
        let mix = plan.mix(&counts, screen)?;
        let (held, records) = (encoded.held_out, training.records().unwrap_or(0));
        let held_out = plan.held_out(held.len(), records, screen);
        let mut eval_data = None;
        if held_out.is_some() {
            eval_data = Some(training.evaluation(held, length)?);
        } else if let Some(path) = &plan.options.eval_data {
            eval_data = Some(read_examples(path, reading, None, base, length)?);
        }
        if let Some(data) = &mut eval_data {
            screen.line(&format!("eval data {}", data.report));
            let size = ("eval_batch_size", plan.eval_batch_size);
            let answers = Answers::new((data.format, &data.records), reading, base, size, length)?;
            let examples = std::mem::take(&mut data.examples);
            let batches = EvalBatches::new(examples, size, base, length)?;
            self.evaluator = Some(Arc::new(CausalEvaluator { batches, answers }));
        }
        self.prompts = Prompts::new(plan, eval_data.as_ref(), base)?;
        Ok(TrainingSet {
            examples,
            mix,
            held_out,
        })
    }

    fn uncut(&self, plan: &TrainPlan, base: &Base) -> Result<Vec<Example>, TrainError> {
        // Concatenated texts are divided by the length, and not cut.
        let length = if plan.options.reading.concatenate {
            base.max_length(plan.options.max_length, LEAST)?
        } else {
            UNCUT
        };
        Ok(TrainingData::new(plan, base)?.in_memory(length)?.0)
    }

    fn eval_examples(&self) -> &[Example] {
        let evaluator = self.evaluator.as_ref();
        evaluator.map_or(&[][..], |evaluator| evaluator.batches.examples.as_slice())
    }

    fn collate(&self) -> Collate<Example> {
        if self.packing {
            |examples, _| pack(examples)
        } else {
            Example::collate
        }
    }

    fn task(&self, model: M) -> CausalLmTask<M> {
        CausalLmTask::new(model, self.label_smoothing)
            .with_checkpointed_activations(self.checkpoint_activations)
    }

    fn model(task: &CausalLmTask<M>) -> &M {
        &task.model
    }

    fn into_model(task: CausalLmTask<M>) -> M {
        task.model
    }

    fn evaluator(&self) -> Option<Arc<dyn Evaluate<CausalLmTask<M>>>> {
        Some(self.evaluator.clone()?)
    }

    fn best_by(&self) -> BestBy {
        BestBy::new("loss", false)
    }

    fn score_texts(
        &self,
        task: &CausalLmTask<M>,
        base: &Base,
        ranks: &dyn Ranks,
        screen: &mut Screen,
        when: &str,
    ) -> Result<(Metrics, Vec<GeneratedText>), TrainError> {
        self.prompts.score(&task.model, base, ranks, screen, when)
    }
}

/// Creates the error for an encoder, or a model with a head, in place of a language model.
pub(super) fn no_language_model(sources: &Sources) -> TrainError {
    if ModelConfig::decoders().contains(&sources.model.config().model_type()) {
        let message = format!(
            "{} has a head of classes in place of the output layer, so that it continues no text; use `lora predict`, or \
             `lora eval` with labelled data",
            sources.model.path().display()
        );
        return TrainError::config("model", message);
    }
    let error = ModelError::UnsupportedConfig {
        path: sources.model.path().join("config.json"),
        key: "model_type".into(),
        value: sources.model.config().model_type().into(),
        expected: ModelConfig::decoders().join(", "),
    };
    error.into()
}
