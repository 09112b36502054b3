//! Backward pass, shared by all backends: it scales the gradients that the forward pass computed.

use super::{CrossEntropy, HeadGradients, HeadLossOps};
use crate::ops::packed::PackedLayout;
use crate::ops::prelude::*;

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
        let operation = Operation::<B, C, _, 2>::new([&hidden, &weight], backward);
        let (loss, nll, best, grad_hidden, grad_weight) = B::head_loss_and_gradients(
            hidden.into_primitive(),
            weight.into_primitive(),
            targets,
            options,
            requested,
        );
        let loss = operation.finish([grad_hidden, grad_weight], loss);
        (loss, FloatTensor::<Self>::new(nll), best)
    }

    fn packed_head_loss(
        hidden: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
        targets: IntTensor<Self>,
        options: CrossEntropy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, IntTensor<Self>) {
        let requested = HeadGradients {
            hidden: hidden.is_tracked(),
            weight: false,
        };
        let operation = Operation::<B, C, _, 1>::new([&hidden], backward);
        let (loss, nll, best, gradient) = B::packed_head_loss_and_gradient(
            hidden.into_primitive(),
            packed,
            scales.into_primitive(),
            layout,
            targets,
            options,
            requested,
        );
        let loss = operation.finish([gradient], loss);
        (loss, FloatTensor::<Self>::new(nll), best)
    }
}

/// Scales the gradients of the hidden states and of the projection, which are those for a loss of factor 1.
fn backward<B: Backend, const N: usize>(
    pass: &mut BackwardPass<'_, B, N>,
    grad: FloatTensor<B>,
    gradients: [Option<FloatTensor<B>>; N],
) {
    for (index, gradient) in gradients.into_iter().enumerate() {
        if let Some(gradient) = gradient {
            pass.register(index, || {
                let factor = B::float_cast(grad.clone(), gradient.dtype().into());
                let factor = B::float_reshape(factor, [1, 1].into());
                B::float_mul(gradient, factor)
            });
        }
    }
}
