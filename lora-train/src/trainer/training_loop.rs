//! The training loop: steps, evaluations, checkpoints.

use super::gradients::{Group, StepGradients, gradients};
use super::optimizer::{Factor, scale};
use super::optimizer_tap::{OptimizerTap, Tapped};
use super::ranks::{Exchange, agree, digest_of_trained};
use super::step_values::{Reader, StepValues};
use super::{
    Best, CheckpointDir, EvalEvent, Event, Every, NonFinite, Position, ReadValues, Run, RunState,
    StepEvent, Task,
};
use crate::TrainError;
use crate::data::Sample;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_train::Learner;
use std::time::Instant;

/// The loop around Burn's [`Learner`], which holds the model, its optimizer and its schedule.
pub(super) struct TrainingLoop<M, S: Sample> {
    pub run: Run<M, S>,
    pub state: RunState,
    pub checkpoints: CheckpointDir,
    pub tap: OptimizerTap,
    pub last_evaluation: Option<EvalEvent>,
    pub exchange: Exchange,
    /// Reader of values one step late; `None` to read them at once.
    reader: Option<Reader>,
    /// Step whose values are still to be read.
    pending: Option<Pending>,
}

/// Step whose loss and gradient norm are not known yet.
struct Pending {
    /// Event of the step, without both.
    event: StepEvent,
    /// Description of its batch.
    batch: String,
}

impl<S: Sample, M: Task<S>> TrainingLoop<M, S> {
    /// Creates a loop in this state.
    pub(super) fn new(
        run: Run<M, S>,
        state: RunState,
        checkpoints: CheckpointDir,
        tap: OptimizerTap,
    ) -> Self {
        let config = &run.config;
        let late = config.read_values == ReadValues::OneStepLate
            && matches!(config.non_finite, NonFinite::Fail);
        Self {
            exchange: Exchange::new(run.ranks.clone()),
            run,
            state,
            checkpoints,
            tap,
            last_evaluation: None,
            reader: late.then(Reader::start),
            pending: None,
        }
    }

    /// Trains to the last step. Returns the reason if the run stopped earlier.
    pub(super) fn train(
        &mut self,
        learner: &mut Learner<Tapped<M>>,
    ) -> Result<Option<String>, TrainError> {
        let clock = Clock {
            before: self.state.seconds,
            start: Instant::now(),
            first_step: self.state.step + 1,
        };
        self.notify(&Event::Start {
            first_step: clock.first_step,
            total_steps: self.run.config.total_steps,
        })?;
        let mut stopped = None;
        while stopped.is_none() && self.state.step < self.run.config.total_steps {
            stopped = self.epoch(learner, &clock)?;
        }
        self.finish_pending(&clock)?;
        self.state.seconds = clock.seconds();
        self.notify(&Event::End)?;
        Ok(stopped)
    }

    /// Trains on the rest of an epoch. Returns the reason if the run is to stop.
    fn epoch(
        &mut self,
        learner: &mut Learner<Tapped<M>>,
        clock: &Clock,
    ) -> Result<Option<String>, TrainError> {
        let batches_in_epoch = self.run.loader.batches_in(self.state.position.epoch);
        let epoch = self.state.position.epoch;
        let (accumulation, ranks) = (self.run.config.accumulation, self.exchange.ranks());
        let mut batches = self.run.loader.share_from(
            self.state.position,
            accumulation,
            (ranks.rank(), ranks.size()),
        );
        while self.state.step < self.run.config.total_steps && self.state.position.epoch == epoch {
            let Some(group) = Group::take(&self.run, self.state.position, &mut batches) else {
                break;
            };
            let stopped = self.step(learner, group, batches_in_epoch, clock)?;
            if let Some(reason) = &stopped {
                self.notify(&Event::Stopped(reason.clone()))?;
                return Ok(stopped);
            }
        }
        Ok(None)
    }

    /// Takes one optimizer step, then evaluates and saves if due. Returns the reason if the run is to stop.
    fn step(
        &mut self,
        learner: &mut Learner<Tapped<M>>,
        group: Group<S::Batch>,
        batches_in_epoch: usize,
        clock: &Clock,
    ) -> Result<Option<String>, TrainError> {
        let step = self.state.step + 1;
        let position = next_position(self.state.position, group.length, batches_in_epoch);
        let epoch = position.epoch as f64 + position.batch as f64 / batches_in_epoch as f64;
        let described = group.describe();

        learner.lr_step();
        let interrupter = &self.run.interrupter;
        let StepGradients {
            grads,
            values,
            tokens,
            stop: interrupted,
        } = gradients(
            learner,
            &mut self.exchange,
            group,
            (self.run.config.seed, step),
            || {
                let stops = interrupter.should_stop();
                stops.then(|| interrupter.get_message().unwrap_or_default())
            },
        )?;
        let mut current = Pending {
            event: StepEvent {
                step,
                epoch,
                loss: f64::NAN,
                lr: learner.lr_current().base(),
                grad_norm: f64::NAN,
                tokens,
                skipped: false,
                seconds: 0.0,
            },
            batch: described,
        };
        let grads = self.prepared(&learner.model().task, grads, values, &mut current)?;

        let end = step == self.run.config.total_steps;
        let due = |every: Every| match every {
            Every::Epoch => position.batch == 0 || end,
            Every::Steps(n) => step.is_multiple_of(n.max(1)) || end,
            Every::End => end,
            Every::Never => false,
        };
        let evaluate = due(self.run.config.evaluate) && interrupted.is_none();
        // An evaluation may end the run early, and the run must be resumable from there.
        let save = interrupted.is_some()
            || due(self.run.config.save)
            || (evaluate && self.run.config.patience.is_some());
        if save {
            self.tap.request();
        }
        learner.optimizer_step(grads);
        self.state.step = step;
        self.state.position = position;
        self.finish_pending(clock)?;
        self.pending = Some(current);
        // The end of the first step, in which a GPU backend compiles, is of interest at once.
        if self.reader.is_none() || evaluate || save || step == clock.first_step {
            self.finish_pending(clock)?;
        }

        let mut stopped = None;
        if evaluate {
            stopped = self.evaluate(&learner.model().task, epoch)?;
        }
        if interrupted.is_some() {
            stopped = interrupted;
        }
        if save {
            self.state.seconds = clock.seconds();
            self.save(&learner.model().task)?;
        }
        Ok(stopped)
    }

    /// Clips the gradients of a step, and reads its loss and norm or begins to. Returns no gradients for a step to leave out.
    fn prepared(
        &mut self,
        model: &M,
        grads: GradientsParams,
        values: Tensor<1>,
        current: &mut Pending,
    ) -> Result<GradientsParams, TrainError> {
        let max = self.run.config.max_grad_norm;
        let factor = match &self.reader {
            Some(reader) => {
                let squared_norm = values.clone().narrow(0, 1, 1);
                reader.begin(values)?;
                max.map(|max| Factor::clip_on_device(squared_norm, max))
            }
            None => {
                let values = StepValues::read(values)?;
                self.judge(values, current)?;
                if current.event.skipped {
                    return Ok(GradientsParams::new());
                }
                max.and_then(|max| Factor::clip(values.grad_norm, max))
            }
        };
        Ok(match factor {
            Some(factor) => scale(model, grads, factor),
            None => grads,
        })
    }

    /// Adds its values to a step. Decides what becomes of a step whose values are not finite.
    fn judge(&mut self, values: StepValues, of: &mut Pending) -> Result<(), TrainError> {
        let StepValues { loss, grad_norm } = values;
        (of.event.loss, of.event.grad_norm) = (loss, grad_norm);
        if values.are_finite() {
            self.state.skipped_in_a_row = 0;
            return Ok(());
        }
        let step = of.event.step;
        // Every rank comes here, with the same values, and the first one has the first batch.
        let batch = self.exchange.ranks().first_of(of.batch.as_bytes())?;
        let batch = String::from_utf8_lossy(&batch).into_owned();
        let NonFinite::Skip { limit } = self.run.config.non_finite else {
            let loss = if loss.is_finite() { grad_norm } else { loss };
            return Err(TrainError::NonFiniteLoss { step, batch, loss });
        };
        of.event.skipped = true;
        self.state.skipped_in_a_row += 1;
        let steps = self.state.skipped_in_a_row;
        if steps >= limit {
            return Err(TrainError::NonFiniteSteps { steps, step, batch });
        }
        Ok(())
    }

    /// Waits for the values of the pending step, if there is one and they are read late, and reports the step.
    fn finish_pending(&mut self, clock: &Clock) -> Result<(), TrainError> {
        let Some(mut pending) = self.pending.take() else {
            return Ok(());
        };
        let mut end = Instant::now();
        if let Some(reader) = &self.reader {
            let values;
            (values, end) = reader.wait()?;
            self.judge(values, &mut pending)?;
        }
        pending.event.seconds = clock.seconds_at(end);
        self.notify(&Event::Step(pending.event))
    }

    /// Evaluates and keeps the best weights. Returns the reason if the run is to stop early.
    fn evaluate(&mut self, model: &M, epoch: f64) -> Result<Option<String>, TrainError> {
        let start = Instant::now();
        let metrics = self.run.hooks.evaluate(&model.valid())?;
        let value = metrics.get(&self.run.config.best_metric).copied();
        let value = value.filter(|value| value.is_finite());
        let better = |value: &f64| match &self.state.best {
            None => true,
            Some(best) if self.run.config.higher_is_better => *value > best.value,
            Some(best) => *value < best.value,
        };
        let step = self.state.step;
        let is_better = value.as_ref().is_some_and(better);
        // The first rank decides for all: on a GPU, the last bits of its metrics may be its own.
        let decision = self.exchange.ranks().first_of(&[is_better.into()])?;
        let is_best = decision == [1];
        if is_best {
            if self.exchange.ranks().is_first() {
                let hooks = &mut self.run.hooks;
                let saved = self
                    .checkpoints
                    .save_best(step, |dir| hooks.save_weights(model, dir))?;
                self.tell_left(saved.left)?;
            }
            let value = value.unwrap_or(f64::NAN);
            self.state.best = Some(Best { step, value });
            self.state.evaluations_since_best = 0;
        } else {
            self.state.evaluations_since_best += 1;
        }
        let evaluation = EvalEvent {
            step,
            epoch,
            eval: metrics,
            best: is_best,
            eval_seconds: start.elapsed().as_secs_f64(),
        };
        self.notify(&Event::Eval(evaluation.clone()))?;
        self.last_evaluation = Some(evaluation);
        let since = self.state.evaluations_since_best;
        let exhausted = self.run.config.patience.is_some_and(|most| since >= most);
        Ok(exhausted.then(|| {
            let metric = &self.run.config.best_metric;
            format!("{metric} has not improved for {since} evaluations")
        }))
    }

    /// Writes a checkpoint, after a comparison of the trained weights of all ranks.
    fn save(&mut self, model: &M) -> Result<(), TrainError> {
        let ranks = self.exchange.ranks();
        if !ranks.is_alone() {
            agree(
                ranks,
                &[("state of the trained weights", digest_of_trained(model)?)],
            )?;
        }
        let message = "the optimizer was not stepped before its state was saved";
        let optimizer = self.tap.take().ok_or_else(|| TrainError::burn(message))?;
        if !ranks.is_first() {
            return Ok(());
        }
        let hooks = &mut self.run.hooks;
        let start = Instant::now();
        let saved = self
            .checkpoints
            .save_last(&self.state, optimizer, |dir| hooks.save_weights(model, dir))?;
        self.state.saving_seconds += start.elapsed().as_secs_f64();
        self.notify(&Event::Saved(saved.path))?;
        self.tell_left(saved.left)
    }

    /// Tells which checkpoints could not be removed.
    fn tell_left(&mut self, left: Vec<String>) -> Result<(), TrainError> {
        left.into_iter().try_for_each(|reason| {
            let text = format!("an old checkpoint stays, since it cannot be removed: {reason}");
            self.notify(&Event::Warning(text))
        })
    }

    fn notify(&mut self, event: &Event) -> Result<(), TrainError> {
        self.run
            .observers
            .iter_mut()
            .try_for_each(|observer| observer.observe(event))
    }
}

/// Returns the position after `batches` more batches.
fn next_position(position: Position, batches: usize, batches_in_epoch: usize) -> Position {
    let batch = position.batch + batches;
    if batch < batches_in_epoch {
        return Position { batch, ..position };
    }
    Position {
        epoch: position.epoch + 1,
        batch: 0,
    }
}

/// Seconds of the run, including those of earlier sessions.
struct Clock {
    before: f64,
    start: Instant,
    /// First step of this session.
    first_step: usize,
}

impl Clock {
    fn seconds(&self) -> f64 {
        self.seconds_at(Instant::now())
    }

    fn seconds_at(&self, instant: Instant) -> f64 {
        self.before + (instant - self.start).as_secs_f64()
    }
}
