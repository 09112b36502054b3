//! Backward passes, shared by all backends.

use super::{AttentionOps, AttentionOptions, AttentionState, by_head, join, split};
use crate::ops::prelude::*;

/// Tensors saved by the forward pass for the backward pass.
#[derive(Clone, Debug)]
struct Saved<I, T> {
    /// Nodes of queries, keys and values, or of the fused tensor.
    inputs: I,
    bias: T,
    output: T,
    statistics: T,
    options: AttentionOptions,
}

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
        let (output, statistics) =
            B::attend_forward(query, key, value, bias.clone(), options.clone());
        let saved = Saved {
            inputs,
            bias,
            output: output.clone(),
            statistics,
            options,
        };
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
        let (output, statistics) =
            B::attend_forward(query, key, value, bias.clone(), options.clone());
        let saved = Saved {
            inputs,
            bias,
            output: output.clone(),
            statistics,
            options,
        };
        operation.finish(saved, join::<B>(output))
    }
}

fn backward<B: Backend + AttentionOps>(
    pass: &mut BackwardPass<'_, B, 4>,
    grad: FloatTensor<B>,
    saved: Saved<[NodeId; 3], FloatTensor<B>>,
) {
    let [query, key, value] = saved.inputs.map(|input| pass.saved(input));
    let state = AttentionState {
        query,
        key,
        value,
        bias: saved.bias,
        output: saved.output,
        statistics: saved.statistics,
    };
    let (query, key, value, bias) = B::attend_backward(state, grad, saved.options, pass.needs(3));
    for (index, gradient) in [Some(query), Some(key), Some(value), bias]
        .into_iter()
        .enumerate()
    {
        if let Some(gradient) = gradient {
            pass.register(index, || gradient);
        }
    }
}

fn fused_backward<B: Backend + AttentionOps>(
    pass: &mut BackwardPass<'_, B, 1>,
    grad: FloatTensor<B>,
    saved: Saved<(NodeId, usize), FloatTensor<B>>,
) {
    let (fused, heads) = saved.inputs;
    let [query, key, value] = split::<B>(pass.saved(fused), heads);
    let state = AttentionState {
        query,
        key,
        value,
        bias: saved.bias,
        output: saved.output,
        statistics: saved.statistics,
    };
    pass.register(0, || {
        B::attend_fused_backward(state, by_head::<B>(grad, heads), saved.options)
    });
}
