//! A run from its parts: Burn's `Learner` and `SupervisedTraining`, with our strategy.

use super::quiet::{NoLog, NoRenderer};
use super::strategy::{Hooks, Inner, Trainer, TrainerConfig};
use super::{
    AdamW, BatchLoader, Checkpoint, CheckpointDir, EvalEvent, LoraPlus, Observer, RunState,
    Schedule, Task,
};
use crate::TrainError;
use crate::data::Sample;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn_train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

/// How a run ended.
#[derive(Debug)]
pub struct Outcome<M> {
    /// The model after the last step, as `valid()`.
    pub model: M,
    /// Where the run stands.
    pub state: RunState,
    /// Why it ended before its last step, if it did.
    pub stopped: Option<String>,
    /// The last evaluation of this session.
    pub last_evaluation: Option<EvalEvent>,
}

/// What a run needs beside the model.
pub struct Run<M, S: Sample> {
    /// How it goes.
    pub config: TrainerConfig,
    /// The optimizer.
    pub adamw: AdamW,
    /// The learning rate.
    pub schedule: Schedule,
    /// Other rates for some factors.
    pub lora_plus: Option<LoraPlus>,
    /// The data.
    pub loader: BatchLoader<S>,
    /// Evaluation and saving.
    pub hooks: Box<dyn Hooks<M>>,
    /// Who is told.
    pub observers: Vec<Box<dyn Observer>>,
    /// Stops it from outside; the run then saves a checkpoint and ends.
    pub interrupter: Interrupter,
    /// Options that change the numbers, compared when a run is resumed.
    pub fingerprint: String,
}

/// Trains.
///
/// `output` receives `checkpoints/`. With `resume`, the model must already hold the checkpoint's
/// weights; optimizer, schedule, random numbers and place in the data are set from it.
///
/// # Errors
/// If the checkpoint is of a run with other options, a loss is not finite, or anything cannot be
/// written.
pub fn fit<S: Sample, M: Task<S>>(
    model: M,
    run: Run<M, S>,
    output: &Path,
    resume: Option<Checkpoint>,
) -> Result<Outcome<M>, TrainError> {
    let optimizer = run.adamw.init(&model);
    let mut state = RunState {
        fingerprint: run.fingerprint.clone(),
        ..RunState::default()
    };
    let mut record = None;
    if let Some(checkpoint) = resume {
        if checkpoint.state.fingerprint != run.fingerprint {
            return Err(TrainError::Checkpoint {
                path: checkpoint.path,
                message: format!(
                    "was written by a run with other options ({}); resume with the same ones, or \
                     start anew from its adapter",
                    differences(&checkpoint.state.fingerprint, &run.fingerprint)
                ),
            });
        }
        state = checkpoint.state;
        record = Some(checkpoint.optimizer);
    }
    let schedule = run.schedule.starting_at(state.step);
    let schedule = match run.lora_plus {
        None => ModuleLrScheduler::new(schedule),
        Some(lora_plus) => lora_plus.schedule(&model, &schedule),
    };
    let mut learner = Learner::new(model, optimizer, schedule);
    if let Some(record) = record {
        learner.load_optim(record);
    }
    let loader = Arc::new(run.loader.clone());
    let strategy = Arc::new(Trainer {
        inner: RefCell::new(Inner {
            config: run.config,
            state,
            loader: run.loader,
            checkpoints: CheckpointDir::new(output.join("checkpoints")),
            hooks: run.hooks,
            observers: run.observers,
            error: None,
            stopped: None,
            last_evaluation: None,
        }),
    });
    let result = SupervisedTraining::new(output, loader.clone(), loader)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .with_interrupter(run.interrupter)
        // Progress and metrics are told to the observers; Burn would write them to files of its own.
        .renderer(Box::new(NoRenderer))
        .with_metric_logger(NoLog)
        .with_application_logger(None)
        .launch(learner);
    let mut inner = strategy.inner.borrow_mut();
    if let Some(error) = inner.error.take() {
        return Err(error);
    }
    if let Some(error) = result.error {
        return Err(TrainError::Burn {
            message: error.to_string(),
        });
    }
    Ok(Outcome {
        model: result.model,
        state: inner.state.clone(),
        stopped: inner.stopped.take(),
        last_evaluation: inner.last_evaluation.take(),
    })
}

/// The lines that two fingerprints do not share.
fn differences(saved: &str, now: &str) -> String {
    let only = |a: &str, b: &str| {
        let lines = a
            .lines()
            .filter(|line| !b.lines().any(|other| other == *line));
        lines.collect::<Vec<_>>().join(", ")
    };
    format!("it had: {}; now: {}", only(saved, now), only(now, saved))
}
