//! What the training loop asks of a model and its loss.

use super::MicroBatch;
use crate::data::Sample;
use burn::backend::ExecutionError;
use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn::tensor::{Device, Tensor};
use burn_train::metric::{Adaptor, LossInput};
use burn_train::{InferenceStep, ItemLazy, LearnerModel, TrainOutput, TrainStep};
use std::fmt;
use std::sync::{Arc, Mutex};

/// A model with its loss: what [`Trainer`](super::Trainer) trains, through Burn's learner.
///
/// `TrainStep::step` computes the gradients of the batch's loss, summed over its labels and
/// multiplied by [`MicroBatch::loss_scale`]; `TrainStep::optimize` calls
/// [`OptimizerTap::observe`] when it has stepped the optimizer.
pub trait Task<S: Sample>:
    LearnerModel
    + TrainStep<Input = MicroBatch<S::Batch>, Output = StepOutput>
    + InferenceStep<Input = MicroBatch<S::Batch>, Output = StepOutput>
{
    /// Where the optimizer's state can be tapped.
    fn tap(&self) -> &OptimizerTap;
}

/// What `TrainStep::step` of a task does: the pass's random numbers, its scaled loss, and the gradients.
pub(crate) fn train_step<M, B>(
    model: &M,
    device: &Device,
    micro: &MicroBatch<B>,
    loss_sum: impl FnOnce(&B) -> Tensor<1>,
) -> TrainOutput<StepOutput>
where
    M: Module,
{
    device.seed(micro.seed);
    let loss = loss_sum(&micro.batch).mul_scalar(micro.loss_scale);
    let grads = loss.backward();
    let output = StepOutput {
        loss: loss.detach(),
    };
    TrainOutput::new(model, grads, output)
}

/// What `TrainStep::optimize` of a task does: a step, and a look at the optimizer.
pub(crate) fn optimize<S: Sample, M: Task<S>>(
    model: M,
    optimizer: &mut ModuleOptimizer,
    lr: ModuleLearningRate,
    grads: GradientsParams,
) -> M {
    let stepped = optimizer.step(lr, model, grads);
    stepped.tap().observe(optimizer);
    stepped
}

/// What one forward pass gives.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// The scaled loss, `[1]`: the passes of one step add up to its mean loss.
    pub loss: Tensor<1>,
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(Self {
            loss: self.loss.without_autodiff(),
        })
    }
}

impl Adaptor<LossInput> for StepOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}

/// Takes the optimizer's state out of Burn's `Learner`, which keeps it to itself but for
/// `TrainStep::optimize`. Clones are one tap.
#[derive(Clone, Default)]
pub struct OptimizerTap(Arc<Mutex<Tapped>>);

#[derive(Default)]
struct Tapped {
    wanted: bool,
    record: Option<OptimizerRecord>,
}

impl OptimizerTap {
    /// To be called after each step of the optimizer.
    pub fn observe(&self, optimizer: &ModuleOptimizer) {
        let mut tapped = self.lock();
        if tapped.wanted {
            tapped.record = Some(optimizer.to_record());
            tapped.wanted = false;
        }
    }

    /// Asks for the state after the next step.
    pub(crate) fn want(&self) {
        self.lock().wanted = true;
    }

    /// The state asked for.
    pub(crate) fn take(&self) -> Option<OptimizerRecord> {
        self.lock().record.take()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tapped> {
        // Both fields are replaced whole: no panic can leave them half-written.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl fmt::Debug for OptimizerTap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OptimizerTap")
    }
}
