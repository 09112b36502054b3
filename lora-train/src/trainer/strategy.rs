//! The loop itself.

use super::batches::loss_scale;
use super::optimizer::{scale, squared_norm};
use super::{
    BatchLoader, Best, CheckpointDir, EvalEvent, Event, MicroBatch, Observer, Position, RunState,
    StepEvent, Task,
};
use crate::TrainError;
use crate::data::{Sample, SampleBatch};
use burn::optim::GradientsAccumulator;
use burn::tensor::Tensor;
use burn_train::{
    EventProcessorTraining, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// When something is done in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// After each epoch, and at the end.
    Epoch,
    /// After this many steps, and at the end.
    Steps(usize),
    /// At the end only.
    End,
    /// Not at all.
    Never,
}

/// How a run goes.
#[derive(Clone, Debug)]
pub struct TrainerConfig {
    /// Number of optimizer steps.
    pub total_steps: usize,
    /// Batches to a step.
    pub accumulation: usize,
    /// Gradients are scaled down to this norm of all together.
    pub max_grad_norm: Option<f64>,
    /// When to evaluate.
    pub evaluate: Every,
    /// When to write a checkpoint.
    pub save: Every,
    /// Stop after this many evaluations without a better one.
    pub patience: Option<usize>,
    /// The metric that says which evaluation is the best.
    pub best_metric: String,
    /// Whether more of it is better.
    pub higher_is_better: bool,
    /// Seed of everything random in the run.
    pub seed: u64,
}

/// What the loop asks of its surroundings.
pub trait Hooks<M>: Send {
    /// Metrics of the model, by name. It comes as `valid()`, without dropout.
    ///
    /// # Errors
    /// Ends the run.
    fn evaluate(&mut self, model: &M) -> Result<BTreeMap<String, f64>, TrainError>;

    /// Writes what was trained into a directory.
    ///
    /// # Errors
    /// Ends the run.
    fn save_weights(&mut self, model: &M, dir: &Path) -> Result<(), TrainError>;
}

/// The strategy: [`fit`](super::fit) hands it to Burn.
pub struct Trainer<M, S: Sample> {
    pub(crate) inner: RefCell<Inner<M, S>>,
}

pub(crate) struct Inner<M, S: Sample> {
    pub config: TrainerConfig,
    pub state: RunState,
    pub loader: BatchLoader<S>,
    pub checkpoints: CheckpointDir,
    pub hooks: Box<dyn Hooks<M>>,
    pub observers: Vec<Box<dyn Observer>>,
    pub error: Option<TrainError>,
    pub stopped: Option<String>,
    pub last_evaluation: Option<EvalEvent>,
}

impl<S: Sample, M: Task<S>> SupervisedLearningStrategy<M> for Trainer<M, S> {
    fn fit(
        &self,
        mut components: TrainingComponents<M>,
        mut learner: Learner<M>,
        train: TrainLoader<M>,
        _valid: ValidLoader<M>,
        _starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let mut inner = self.inner.borrow_mut();
        if let Err(error) = inner.run(&mut components, &mut learner, &train) {
            inner.error = Some(error);
        }
        (learner.model(), components.event_processor)
    }
}

impl<S: Sample, M: Task<S>> Inner<M, S> {
    fn run(
        &mut self,
        components: &mut TrainingComponents<M>,
        learner: &mut Learner<M>,
        train: &TrainLoader<M>,
    ) -> Result<(), TrainError> {
        let clock = Clock {
            before: self.state.seconds,
            start: Instant::now(),
        };
        self.tell(&Event::Start {
            first_step: self.state.step + 1,
            total_steps: self.config.total_steps,
        })?;
        'run: while self.state.step < self.config.total_steps {
            self.loader.seek(self.state.position);
            let epoch = self.state.position.epoch;
            components
                .event_processor
                .process_train(LearnerEvent::StartSplit {
                    epoch_number: epoch + 1,
                    total_items: train.num_items(),
                })
                .map_err(burn_error)?;
            let mut batches = train.iter();
            loop {
                let mut group = Vec::with_capacity(self.config.accumulation);
                for batch in batches.by_ref().take(self.config.accumulation) {
                    group.push(batch.map_err(burn_error)?);
                }
                if group.is_empty() {
                    break;
                }
                let stopping = self.step(components, learner, group, batches.progress(), &clock)?;
                if stopping || self.state.step == self.config.total_steps {
                    break 'run;
                }
            }
            components
                .event_processor
                .process_train(LearnerEvent::EndSplit(epoch + 1))
                .map_err(burn_error)?;
        }
        self.state.seconds = clock.seconds();
        self.tell(&Event::End)
    }

    /// One optimizer step and what follows it. `true` if the run is to stop.
    fn step(
        &mut self,
        components: &mut TrainingComponents<M>,
        learner: &mut Learner<M>,
        group: Vec<MicroBatch<S::Batch>>,
        progress: burn::data::dataloader::Progress,
        clock: &Clock,
    ) -> Result<bool, TrainError> {
        let step = self.state.step + 1;
        let batches = group.len();
        let tokens: usize = group.iter().map(|micro| micro.batch.counted_tokens()).sum();
        let weight: f64 = group.iter().map(|micro| micro.batch.weight()).sum();
        let described = group
            .first()
            .map(|m| m.batch.describe())
            .unwrap_or_default();

        learner.lr_step();
        let mut accumulator = GradientsAccumulator::new();
        let mut losses = Vec::with_capacity(batches);
        for (index, mut micro) in group.into_iter().enumerate() {
            micro.loss_scale = loss_scale(weight);
            micro.seed = mix(self.config.seed, step as u64, index as u64);
            let output = learner.train_step(micro);
            losses.push(output.item.loss.clone().without_autodiff());
            accumulator.accumulate(&learner.model(), output.grads);
            let item = TrainingItem::new(
                output.item,
                progress.clone(),
                Some(step),
                Some(learner.lr_current()),
            );
            let event = LearnerEvent::ProcessedItem(item);
            components
                .event_processor
                .process_train(event)
                .map_err(burn_error)?;
        }
        let mut grads = accumulator.grads();
        let (loss, grad_norm) = read(losses, squared_norm(&learner.model(), &grads))?;
        if !loss.is_finite() || !grad_norm.is_finite() {
            let value = if loss.is_finite() { grad_norm } else { loss };
            return Err(TrainError::NonFiniteLoss {
                step,
                batch: described,
                loss: value,
            });
        }
        if let Some(max) = self.config.max_grad_norm {
            // PyTorch's clip_grad_norm_, with its guard against a division by zero.
            let factor = max / (grad_norm + 1e-6);
            if factor < 1.0 {
                grads = scale(&learner.model(), grads, factor);
            }
        }

        let position = self.next_position(batches);
        let end = step == self.config.total_steps;
        let due = |every: Every| match every {
            Every::Epoch => position.batch == 0 || end,
            Every::Steps(n) => step.is_multiple_of(n.max(1)) || end,
            Every::End => end,
            Every::Never => false,
        };
        let interrupted = components.interrupter.should_stop();
        let evaluate = due(self.config.evaluate) && !interrupted;
        // An evaluation may end the run early, and then it can be resumed from there.
        let save =
            interrupted || due(self.config.save) || (evaluate && self.config.patience.is_some());
        if save {
            learner.model().tap().want();
        }
        learner.optimizer_step(grads);
        self.state.step = step;
        self.state.position = position;
        self.tell(&Event::Step(StepEvent {
            step,
            epoch: self.epochs_done(),
            loss,
            lr: learner.lr_current().base(),
            grad_norm,
            tokens,
            seconds: clock.seconds(),
        }))?;

        let mut stop = None;
        if evaluate {
            stop = self.evaluate(&learner.model())?;
        }
        if interrupted {
            stop = Some(components.interrupter.get_message().unwrap_or_default());
        }
        if save {
            self.state.seconds = clock.seconds();
            self.save(&learner.model())?;
        }
        if let Some(reason) = stop {
            self.tell(&Event::Stopped(reason.clone()))?;
            self.stopped = Some(reason);
            return Ok(true);
        }
        Ok(false)
    }

    fn evaluate(&mut self, model: &M) -> Result<Option<String>, TrainError> {
        self.tell(&Event::EvalStart)?;
        let start = Instant::now();
        let metrics = self.hooks.evaluate(&model.valid())?;
        let value = metrics.get(&self.config.best_metric).copied();
        let value = value.filter(|value| value.is_finite());
        let best = value.is_some_and(|value| match &self.state.best {
            None => true,
            Some(best) if self.config.higher_is_better => value > best.value,
            Some(best) => value < best.value,
        });
        if let (true, Some(value)) = (best, value) {
            let step = self.state.step;
            let hooks = &mut self.hooks;
            self.checkpoints
                .save_best(step, |dir| hooks.save_weights(model, dir))?;
            self.state.best = Some(Best { step, value });
            self.state.evaluations_since_best = 0;
        } else {
            self.state.evaluations_since_best += 1;
        }
        let evaluation = EvalEvent {
            step: self.state.step,
            epoch: self.epochs_done(),
            eval: metrics,
            best,
            eval_seconds: start.elapsed().as_secs_f64(),
        };
        self.tell(&Event::Eval(evaluation.clone()))?;
        self.last_evaluation = Some(evaluation);
        let since = self.state.evaluations_since_best;
        let exhausted = self
            .config
            .patience
            .is_some_and(|patience| since >= patience);
        Ok(exhausted.then(|| {
            format!(
                "{} has not improved for {since} evaluations",
                self.config.best_metric
            )
        }))
    }

    fn save(&mut self, model: &M) -> Result<(), TrainError> {
        let optimizer = model.tap().take().ok_or_else(|| TrainError::Burn {
            message: "the task did not show its optimizer; does its `optimize` call the tap?"
                .into(),
        })?;
        let hooks = &mut self.hooks;
        let path = self
            .checkpoints
            .save_last(&self.state, optimizer, |dir| hooks.save_weights(model, dir))?;
        self.tell(&Event::Saved(path))
    }

    fn next_position(&self, batches: usize) -> Position {
        let Position { epoch, batch } = self.state.position;
        match batch + batches {
            next if next >= self.loader.batches_in_epoch() => Position {
                epoch: epoch + 1,
                batch: 0,
            },
            next => Position { epoch, batch: next },
        }
    }

    fn epochs_done(&self) -> f64 {
        let Position { epoch, batch } = self.state.position;
        epoch as f64 + batch as f64 / self.loader.batches_in_epoch() as f64
    }

    fn tell(&mut self, event: &Event) -> Result<(), TrainError> {
        self.observers
            .iter_mut()
            .try_for_each(|observer| observer.observe(event))
    }
}

/// Seconds of the run, those of earlier sessions included.
struct Clock {
    before: f64,
    start: Instant,
}

impl Clock {
    fn seconds(&self) -> f64 {
        self.before + self.start.elapsed().as_secs_f64()
    }
}

/// Loss and gradient norm of a step, read back from the device at once.
fn read(losses: Vec<Tensor<1>>, norm: Option<Tensor<1>>) -> Result<(f64, f64), TrainError> {
    let loss = Tensor::cat(losses, 0).sum();
    let norm = norm.unwrap_or_else(|| loss.zeros_like());
    let both = Tensor::cat(vec![loss, norm], 0);
    let values = crate::host::values(both)?;
    Ok((f64::from(values[0]), f64::from(values[1]).sqrt()))
}

fn burn_error(error: impl std::fmt::Display) -> TrainError {
    TrainError::Burn {
        message: error.to_string(),
    }
}

/// A seed for one pass, from those of the run, the step and the batch (SplitMix64's finaliser).
fn mix(seed: u64, step: u64, batch: u64) -> u64 {
    let mut x = seed
        .wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(batch.wrapping_mul(0xd1b5_4a32_d192_ed03));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
