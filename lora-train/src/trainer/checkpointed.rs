//! Activation checkpointing: a training pass that keeps only the inputs of blocks (Chen et al. 2016, arXiv 1604.06174).
//!
//! The forward pass runs all blocks without an autodiff graph. The backward pass starts at the last block: each block runs
//! again, now with a graph, and its gradients are computed at once. So only one block's activations exist at a time, plus
//! one hidden state per block. The random numbers of a block are seeded by its index, so that both passes use the same
//! dropout masks.

use super::{MicroBatch, StepOutput};
use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Gradients, Tensor};
use burn_train::TrainOutput;
use lora_models::{Blocks, LoraModel};

/// Computes the loss and gradients of [`train_step`](super::train_step) with activation checkpointing; only the dropout masks
/// differ.
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
        // Steps of the golden ratio keep the seeds of consecutive passes apart.
        let step = (place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        lora_core::ops::seed(&device, micro.seed.wrapping_add(step));
    };
    let blocks = model.blocks();
    let (before, after) = (blocks, blocks + 1);
    let first = model.first_trained().unwrap_or(blocks);

    // Forward without a graph, yet on the autodiff device: dropout is active only there.
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
    drop(frozen);

    let mut sum = GradientsAccumulator::new();
    let mut add = |grads| sum.accumulate(task, GradientsParams::from_grads(grads, task));
    let x = x.set_require_grad(first < blocks);
    seed(after);
    let loss = loss_sum(model.finish(x.clone())).mul_scalar(micro.loss_scale);
    let mut grads = loss.backward();
    let mut gradient = x.grad_remove(&mut grads);
    add(grads);
    for index in (first..blocks).rev() {
        let (Some(x), Some(grad_output)) = (inputs.pop(), gradient.take()) else {
            break;
        };
        // Below the first trained block nothing needs a gradient; below block 0 the embeddings run again for theirs.
        let x = x.set_require_grad(index > first || first == 0);
        seed(index);
        let again = model.shared_again(input, &shared);
        let y = model.block(index, x.clone(), &again);
        let mut grads = backward_from(y, grad_output);
        gradient = x.grad_remove(&mut grads);
        add(grads);
    }
    if let (0, Some(grad_output)) = (first, gradient) {
        seed(before);
        let x = model.embed(input);
        if x.is_tracked() {
            add(backward_from(x, grad_output));
        }
    }
    TrainOutput {
        grads: sum.grads(),
        item: StepOutput {
            loss: loss.detach(),
        },
    }
}

/// Computes the gradients below `y` from the gradient of `y`.
fn backward_from(y: Tensor<3>, gradient: Tensor<3>) -> Gradients {
    (y * gradient.autodiff()).sum().backward()
}
