//! A training pass that keeps the inputs of blocks only (Chen et al. 2016, arXiv 1604.06174).
//!
//! The blocks run forward once without a graph. Backward, from the last on, each runs again, now with a graph, which the
//! gradient of its output goes back through at once: at any time the activations of one block are there, beside one hidden
//! state for each. The random numbers of a block are seeded by its place, so that it drops the second time what it dropped
//! the first.

use super::{MicroBatch, StepOutput};
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Gradients, Tensor};
use burn_train::TrainOutput;
use lora_models::{Blocks, LoraModel};

/// The gradients of a loss of the hidden states, as `train_step` finds them, but for other draws of dropout.
pub(crate) fn checkpointed_step<M, L, B>(
    task: &M,
    model: &L,
    input: &L::Input,
    micro: &MicroBatch<B>,
    loss_sum: impl FnOnce(Tensor<3>) -> Tensor<1>,
) -> TrainOutput<StepOutput>
where
    M: Module,
    L: LoraModel + Blocks,
{
    let device = model.device();
    let seed = |place: usize| {
        // The golden ratio keeps the seeds of one pass apart from those of the next.
        let step = (place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        device.seed(micro.seed.wrapping_add(step));
    };
    let blocks = model.blocks();
    let (before, after) = (blocks, blocks + 1);
    let first = model.first_trained().unwrap_or(blocks);

    // Forward, without a graph: on an autodiff device, since elsewhere nothing is dropped.
    let frozen = model.clone().no_grad();
    seed(before);
    let mut x = frozen.embed(input);
    let shared = frozen.shared(input);
    let mut inputs = Vec::with_capacity(blocks - first);
    for index in 0..blocks {
        if index >= first {
            inputs.push(x.clone());
        }
        seed(index);
        x = frozen.block(index, x, &shared);
    }
    drop((shared, frozen));

    let mut sum = GradientsAccumulator::new();
    let mut add = |grads| sum.accumulate(task, GradientsParams::from_grads(grads, task));
    let x = x.set_require_grad(first < blocks);
    seed(after);
    let loss = loss_sum(model.finish(x.clone())).mul_scalar(micro.loss_scale);
    let mut grads = loss.backward();
    let mut gradient = x.grad_remove(&mut grads);
    add(grads);
    for index in (first..blocks).rev() {
        let (Some(x), Some(of_output)) = (inputs.pop(), gradient.take()) else {
            break;
        };
        // What is below the first block that trains gets no gradient, and what is below block 0 is run again for its own.
        let x = x.set_require_grad(index > first || first == 0);
        seed(index);
        let y = model.block(index, x.clone(), &model.shared(input));
        let mut grads = back_through(y, of_output);
        gradient = x.grad_remove(&mut grads);
        add(grads);
    }
    if let (0, Some(of_output)) = (first, gradient) {
        seed(before);
        let x = model.embed(input);
        if x.is_tracked() {
            add(back_through(x, of_output));
        }
    }
    TrainOutput {
        grads: sum.grads(),
        item: StepOutput {
            loss: loss.detach(),
        },
    }
}

/// Goes back from `y`, whose gradient is known.
fn back_through(y: Tensor<3>, gradient: Tensor<3>) -> Gradients {
    (y * gradient.autodiff()).sum().backward()
}
