//! Access to the optimizer's state inside Burn's `Learner`.

use burn::module::{Module, ModuleDisplay};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn_train::{InferenceStep, LearnerModel, TrainOutput, TrainStep};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

/// A task in Burn's [`Learner`](burn_train::Learner), with a tap on the optimizer.
///
/// The learner owns its optimizer and shows it only to `TrainStep::optimize`.
#[derive(Module, Debug)]
pub(super) struct Tapped<M: Module> {
    pub task: M,
    #[module(skip)]
    tap: OptimizerTap,
}

impl<M: Module> Tapped<M> {
    pub(super) fn new(task: M, tap: OptimizerTap) -> Self {
        Self { task, tap }
    }
}

impl<M: LearnerModel + ModuleDisplay> TrainStep for Tapped<M> {
    type Input = <M as TrainStep>::Input;
    type Output = <M as TrainStep>::Output;

    fn step(&self, input: Self::Input) -> TrainOutput<Self::Output> {
        TrainStep::step(&self.task, input)
    }

    fn optimize(
        mut self,
        optimizer: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.task = self.task.optimize(optimizer, lr, grads);
        self.tap.observe(optimizer);
        self
    }
}

impl<M: LearnerModel + ModuleDisplay> InferenceStep for Tapped<M> {
    type Input = <M as InferenceStep>::Input;
    type Output = <M as InferenceStep>::Output;

    fn step(&self, input: Self::Input) -> Self::Output {
        InferenceStep::step(&self.task, input)
    }
}

/// Shared cell for one copy of the optimizer's state, made after a step that was asked for it.
#[derive(Clone, Default)]
pub(super) struct OptimizerTap(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Requested,
    Ready(OptimizerRecord),
}

impl OptimizerTap {
    /// Requests the state after the next step.
    pub(super) fn request(&self) {
        *self.lock() = State::Requested;
    }

    /// Takes the requested state, if a step has provided it.
    pub(super) fn take(&self) -> Option<OptimizerRecord> {
        match std::mem::take(&mut *self.lock()) {
            State::Ready(record) => Some(record),
            _ => None,
        }
    }

    fn observe(&self, optimizer: &ModuleOptimizer) {
        let mut state = self.lock();
        if matches!(*state, State::Requested) {
            *state = State::Ready(optimizer.to_record());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is replaced in one assignment: no panic leaves it half-written.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl fmt::Debug for OptimizerTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OptimizerTap")
    }
}
