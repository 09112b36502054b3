//! Backward passes, shared by all backends.

use super::{AttentionOps, AttentionOptions, AttentionState, by_head, join, split};
use crate::ops::prelude::*;

/// Inputs of the forward pass; its bias, maxima and sums; its options.
type Saved<I, T> = (I, [T; 3], AttentionOptions);

impl<B: Backend + AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        let mut operation = Operation::<B, C, _, 4>::new([&query, &key, &value, &bias], backward);
        let inputs = [&query, &key, &value].map(|input| operation.save(input));
        let [query, key, value, bias] =
            [query, key, value, bias].map(|tensor| tensor.into_primitive());
        let (output, maximum, sum) =
            B::attend_forward(query, key, value, bias.clone(), options.clone());
        let saved = (inputs, [bias, maximum, sum], options);
        operation.finish(saved, output)
    }

    fn attend_fused(
        fused: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        heads: usize,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        if bias.is_tracked() {
            let [query, key, value] = split::<Self>(fused, heads);
            return join::<Self>(Self::attend(query, key, value, bias, options));
        }
        let mut operation = Operation::<B, C, _, 1>::new([&fused], fused_backward);
        let inputs = (operation.save(&fused), heads);
        let bias = bias.into_primitive();
        let [query, key, value] = split::<B>(fused.into_primitive(), heads);
        let (output, maximum, sum) =
            B::attend_forward(query, key, value, bias.clone(), options.clone());
        let saved = (inputs, [bias, maximum, sum], options);
        operation.finish(saved, join::<B>(output))
    }
}

fn backward<B: Backend + AttentionOps>(
    pass: &mut BackwardPass<'_, B, 4>,
    grad: FloatTensor<B>,
    (inputs, kept, options): Saved<[NodeId; 3], FloatTensor<B>>,
) {
    let inputs = inputs.map(|input| pass.saved(input));
    let state = AttentionState::new(inputs, kept);
    let (query, key, value, bias) = B::attend_backward(state, grad, options, pass.needs(3));
    pass.register(0, || query);
    pass.register(1, || key);
    pass.register(2, || value);
    if let Some(bias) = bias {
        pass.register(3, || bias);
    }
}

fn fused_backward<B: Backend + AttentionOps>(
    pass: &mut BackwardPass<'_, B, 1>,
    grad: FloatTensor<B>,
    ((fused, heads), kept, options): Saved<(NodeId, usize), FloatTensor<B>>,
) {
    let state = AttentionState::new(split::<B>(pass.saved(fused), heads), kept);
    pass.register(0, || {
        B::attend_fused_backward(state, by_head::<B>(grad, heads), options)
    });
}
