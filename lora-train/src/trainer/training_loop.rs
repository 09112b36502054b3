//! The training loop: steps, evaluations, checkpoints.

use super::optimizer::{Factor, scale, squared_norm};
use super::optimizer_tap::{OptimizerTap, Tapped};
use super::step_values::{Reader, StepValues};
use super::{
    Best, CheckpointDir, EvalEvent, Event, Every, MicroBatch, NonFinite, Position, ReadValues, Run,
    RunState, StepEvent, Task,
};
use crate::TrainError;
use crate::data::{Sample, SampleBatch};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn_train::{ItemLazy, Learner};
use std::time::Instant;

/// The loop around Burn's [`Learner`], which holds the model, its optimizer and its schedule.
pub(super) struct TrainingLoop<M, S: Sample> {
    pub run: Run<M, S>,
    pub state: RunState,
    pub checkpoints: CheckpointDir,
    pub tap: OptimizerTap,
    pub last_evaluation: Option<EvalEvent>,
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
        let mut batches = self.run.loader.batches_from(self.state.position);
        while self.state.step < self.run.config.total_steps {
            let group: Vec<_> = batches
                .by_ref()
                .take(self.run.config.accumulation)
                .collect();
            if group.is_empty() {
                break;
            }
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
        group: Vec<S::Batch>,
        batches_in_epoch: usize,
        clock: &Clock,
    ) -> Result<Option<String>, TrainError> {
        let step = self.state.step + 1;
        let position = next_position(self.state.position, group.len(), batches_in_epoch);
        let epoch = position.epoch as f64 + position.batch as f64 / batches_in_epoch as f64;
        let tokens = group.iter().map(SampleBatch::counted_tokens).sum();
        let described = group[0].describe();

        learner.lr_step();
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
        let (grads, values) = self.gradients(learner, step, group)?;
        let grads = self.prepared(&learner.model().task, grads, values, &mut current)?;

        let end = step == self.run.config.total_steps;
        let due = |every: Every| match every {
            Every::Epoch => position.batch == 0 || end,
            Every::Steps(n) => step.is_multiple_of(n.max(1)) || end,
            Every::End => end,
            Every::Never => false,
        };
        let interrupted = self.run.interrupter.should_stop();
        let evaluate = due(self.run.config.evaluate) && !interrupted;
        // An evaluation may end the run early, and the run must be resumable from there.
        let save = interrupted
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
        if interrupted {
            stopped = Some(self.run.interrupter.get_message().unwrap_or_default());
        }
        if save {
            self.state.seconds = clock.seconds();
            self.save(&learner.model().task)?;
        }
        Ok(stopped)
    }

    /// Accumulates the gradients of the batches of a step. Also returns the loss and the squared norm, `[2]`.
    fn gradients(
        &self,
        learner: &Learner<Tapped<M>>,
        step: usize,
        group: Vec<S::Batch>,
    ) -> Result<(GradientsParams, Tensor<1>), TrainError> {
        let model = learner.model().task;
        let weight: f64 = group.iter().map(SampleBatch::weight).sum();
        // Without labels the loss is zero, whatever the factor.
        let loss_scale = if weight > 0.0 { 1.0 / weight } else { 1.0 };
        let mut accumulator = GradientsAccumulator::new();
        let mut losses = Vec::with_capacity(group.len());
        for (index, batch) in group.into_iter().enumerate() {
            let output = learner.train_step(MicroBatch {
                batch,
                loss_scale,
                seed: mix(self.run.config.seed, step as u64, index as u64),
            });
            accumulator.accumulate(&model, output.grads);
            let synced = output.item.sync();
            losses.push(
                synced
                    .map_err(|error| TrainError::burn(error.to_string()))?
                    .loss,
            );
        }
        let grads = accumulator.grads();
        let loss = Tensor::cat(losses, 0).sum();
        let norm = squared_norm(&model, &grads).unwrap_or_else(|| loss.zeros_like());
        Ok((grads, Tensor::cat(vec![loss, norm], 0)))
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
        let (step, batch) = (of.event.step, of.batch.clone());
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
        let best = value.filter(better).map(|value| Best { step, value });
        let is_best = best.is_some();
        if is_best {
            let hooks = &mut self.run.hooks;
            let saved = self
                .checkpoints
                .save_best(step, |dir| hooks.save_weights(model, dir))?;
            self.tell_left(saved.left)?;
            self.state.best = best;
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

    fn save(&mut self, model: &M) -> Result<(), TrainError> {
        let message = "the optimizer was not stepped before its state was saved";
        let optimizer = self.tap.take().ok_or_else(|| TrainError::burn(message))?;
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

/// Mixes the seed of the run, the step and the batch into the seed of one pass (`SplitMix64`'s finaliser).
fn mix(seed: u64, step: u64, batch: u64) -> u64 {
    let mut x = seed
        .wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(batch.wrapping_mul(0xd1b5_4a32_d192_ed03));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
