//! A run from its parts: Burn's `Learner` and the loop around it.

use super::checkpoint::OPTIMIZER_FILE;
use super::differences::differences;
use super::optimizer_tap::{OptimizerTap, Tapped};
use super::ranks::{ExchangeReport, agree, digest_of_trained};
use super::training_loop::TrainingLoop;
use super::{Checkpoint, CheckpointDir, EvalEvent, Position, Run, RunState, Task};
use crate::TrainError;
use crate::data::{DataDigest, Sample};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn_train::Learner;
use std::path::Path;

/// Result of a run.
#[derive(Debug)]
pub struct Outcome<M> {
    /// The task after the last step, as `valid()`.
    pub model: M,
    /// State of the run after its last step.
    pub state: RunState,
    /// Reason of an early end; `None` if the run took all its steps.
    pub stopped: Option<String>,
    /// The last evaluation of this session.
    pub last_evaluation: Option<EvalEvent>,
    /// Exchange with other ranks in this session.
    pub exchange: ExchangeReport,
}

/// Trains a model.
///
/// With several ranks, each calls this with the same model, data and options, and has the same outcome. The first rank writes the
/// checkpoints.
///
/// Checkpoints go to `checkpoints/` in `output`. With `resume`, the model must already hold the
/// checkpoint's weights; optimizer, schedule, random numbers and position in the data are restored
/// from it.
///
/// # Errors
/// Fails if the ranks differ, the checkpoint belongs to a run with other options, to another model or to no batch of the data, a loss is not
/// finite, or a file cannot be written.
pub fn fit<S: Sample, M: Task<S>>(
    model: M,
    run: Run<M, S>,
    output: &Path,
    resume: Option<Checkpoint>,
) -> Result<Outcome<M>, TrainError> {
    #[cfg(feature = "tracing")]
    let run = traced(run);
    let optimizer = run.adamw.init(&model);
    let mut state = RunState {
        fingerprint: run.fingerprint.clone(),
        data: run.data.clone(),
        eval_data: run.eval_data.clone(),
        ..RunState::default()
    };
    let mut record = None;
    if let Some(checkpoint) = resume {
        let path = checkpoint.path;
        let refused = |message: String| TrainError::Checkpoint { path, message };
        if checkpoint.state.fingerprint != run.fingerprint {
            return Err(refused(format!(
                "was written by a run with other options ({}); resume with the same ones, or \
                 start anew from its adapter",
                differences(&checkpoint.state.fingerprint, &run.fingerprint)
            )));
        }
        // From a position behind its epoch the loop would never come to a batch.
        let Position { epoch, batch } = checkpoint.state.position;
        let batches = run.loader.batches_in(epoch);
        if batch >= batches {
            return Err(refused(format!(
                "is at batch {batch} of epoch {epoch}, which has {batches} batches: the checkpoint is damaged"
            )));
        }
        state = RunState {
            data: state.data,
            eval_data: state.eval_data,
            ..checkpoint.state
        };
        let optimizer = checkpoint.optimizer.for_model(&model);
        record = Some(optimizer.map_err(|message| {
            refused(format!(
                "{OPTIMIZER_FILE}: {message}: the checkpoint is damaged"
            ))
        })?);
    }
    if !run.ranks.is_alone() {
        agree(&*run.ranks, &facts(&model, &run, &state)?)?;
    }
    let schedule = run.schedule.clone().starting_at(state.step);
    let schedule = match run.lora_plus {
        None => ModuleLrScheduler::new(schedule),
        Some(lora_plus) => lora_plus.schedule(&model, &schedule),
    };
    let tap = OptimizerTap::default();
    let mut learner = Learner::new(Tapped::new(model, tap.clone()), optimizer, schedule);
    if let Some(record) = record {
        learner.load_optim(record);
    }
    let checkpoints = CheckpointDir::new(output.join("checkpoints"));
    let checkpoints = checkpoints.keeping(run.config.keep_checkpoints);
    let mut training = TrainingLoop::new(run, state, checkpoints, tap);
    let stopped = training.train(&mut learner)?;
    Ok(Outcome {
        model: learner.model().task.valid(),
        state: training.state,
        stopped,
        last_evaluation: training.last_evaluation,
        exchange: training.exchange.report,
    })
}

/// Returns what must be the same for all ranks.
fn facts<S: Sample, M: Task<S>>(
    model: &M,
    run: &Run<M, S>,
    state: &RunState,
) -> Result<[(&'static str, String); 6], TrainError> {
    let digest =
        |digest: &Option<DataDigest>| digest.as_ref().map_or_else(String::new, DataDigest::lines);
    Ok([
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("set of options", run.fingerprint.clone()),
        ("set of training data", digest(&run.data)),
        ("set of evaluation data", digest(&run.eval_data)),
        ("step to start from", state.step.to_string()),
        ("state of the trained weights", digest_of_trained(model)?),
    ])
}

/// Adds the observer that sends the events of a run to `tracing`.
#[cfg(feature = "tracing")]
fn traced<M, S: Sample>(mut run: Run<M, S>) -> Run<M, S> {
    run.observers
        .push(Box::new(super::traced::Traced::default()));
    run
}
