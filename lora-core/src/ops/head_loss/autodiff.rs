//! The backward pass, for every backend: the gradients are there, and the loss is only multiplied.

use super::{CrossEntropy, HeadGradients, HeadLossOps};
use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{
    Autodiff, Backend, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};

#[derive(Debug)]
struct HeadLossBackward;

impl<B: Backend> Backward<B, 2> for HeadLossBackward {
    /// Of the hidden states and of the projection, for a loss that counts once.
    type State = [Option<FloatTensor<B>>; 2];

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        for (node, gradient) in ops.parents.into_iter().zip(ops.state) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                let factor = B::float_cast(grad.clone(), gradient.dtype().into());
                let factor = B::float_reshape(factor, [1, 1].into());
                grads.register::<B>(node.id, B::float_mul(gradient, factor));
            }
        }
    }
}

impl<B: Backend + HeadLossOps, C: CheckpointStrategy> HeadLossOps for Autodiff<B, C> {
    fn head_loss(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: CrossEntropy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, IntTensor<Self>) {
        let wanted = HeadGradients {
            hidden: hidden.is_tracked(),
            weight: weight.is_tracked(),
        };
        let prepared = HeadLossBackward
            .prepare::<C>([hidden.node(), weight.node()])
            .compute_bound()
            .stateful();
        let (loss, nll, best, of_hidden, of_weight) = B::head_loss_and_gradients(
            hidden.into_primitive(),
            weight.into_primitive(),
            targets,
            options,
            wanted,
        );
        let loss = match prepared {
            OpsKind::Tracked(prep) => prep.finish([of_hidden, of_weight], loss),
            OpsKind::UnTracked(prep) => prep.finish(loss),
        };
        (loss, FloatTensor::<Self>::new(nll), best)
    }
}
