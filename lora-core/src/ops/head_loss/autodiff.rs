//! Backward pass, shared by all backends: it scales the gradients that the forward pass computed.

use super::{CrossEntropy, HeadGradients, HeadLossOps};
use crate::ops::prelude::*;

#[derive(Debug)]
struct HeadLossBackward;

impl<B: Backend> Backward<B, 2> for HeadLossBackward {
    /// Gradients of the hidden states and of the projection for a loss of factor 1.
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
        let requested = HeadGradients {
            hidden: hidden.is_tracked(),
            weight: weight.is_tracked(),
        };
        let prepared = HeadLossBackward
            .prepare::<C>([hidden.node(), weight.node()])
            .compute_bound()
            .stateful();
        let (loss, nll, best, grad_hidden, grad_weight) = B::head_loss_and_gradients(
            hidden.into_primitive(),
            weight.into_primitive(),
            targets,
            options,
            requested,
        );
        let loss = match prepared {
            OpsKind::Tracked(prep) => prep.finish([grad_hidden, grad_weight], loss),
            OpsKind::UnTracked(prep) => prep.finish(loss),
        };
        (loss, FloatTensor::<Self>::new(nll), best)
    }
}
