//! Interface between the training loop and a model with its loss.

use super::MicroBatch;
use crate::data::Sample;
use burn::backend::ExecutionError;
use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};
use burn_train::{InferenceStep, ItemLazy, LearnerModel, TrainOutput, TrainStep};

/// A model with its loss, trained through Burn's [`Learner`](burn_train::Learner).
///
/// `TrainStep::step` computes the gradients of the batch's loss, summed over its labels and
/// multiplied by [`MicroBatch::loss_scale`]. Every module with the two steps of the right types is a
/// task.
pub trait Task<S: Sample>:
    LearnerModel
    + ModuleDisplay
    + TrainStep<Input = MicroBatch<S::Batch>, Output = StepOutput>
    + InferenceStep<Input = MicroBatch<S::Batch>, Output = StepOutput>
{
}

impl<S: Sample, M> Task<S> for M where
    M: LearnerModel
        + ModuleDisplay
        + TrainStep<Input = MicroBatch<S::Batch>, Output = StepOutput>
        + InferenceStep<Input = MicroBatch<S::Batch>, Output = StepOutput>
{
}

/// Seeds the pass, computes its scaled loss and the gradients: `TrainStep::step` of a task.
pub(crate) fn train_step<M, B>(
    model: &M,
    device: &Device,
    micro: &MicroBatch<B>,
    loss_sum: impl FnOnce(&B) -> Tensor<1>,
) -> TrainOutput<StepOutput>
where
    M: Module,
{
    lora_core::ops::seed(device, micro.seed);
    let loss = loss_sum(&micro.batch).mul_scalar(micro.loss_scale);
    let grads = loss.backward();
    let output = StepOutput {
        loss: loss.detach(),
    };
    TrainOutput::new(model, grads, output)
}

/// Result of one forward pass.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// The scaled loss, `[1]`. The passes of a step add up to its mean loss.
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
