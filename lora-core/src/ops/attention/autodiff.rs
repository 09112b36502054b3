//! Backward passes, shared by all backends.

use super::{AttentionOps, AttentionOptions, by_head, join, split};
use crate::ops::prelude::*;

/// Tensors saved by the forward pass for the backward pass.
#[derive(Clone, Debug)]
struct Saved<const N: usize, T> {
    /// Nodes of queries, keys and values, or of the fused tensor.
    inputs: [NodeId; N],
    bias: T,
    output: T,
    statistics: T,
    options: AttentionOptions,
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: Backend + AttentionOps> Backward<B, 4> for AttentionBackward {
    type State = Saved<3, FloatTensor<B>>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let [node_query, node_key, node_value, node_bias] = ops.parents;
        let saved = ops.state;
        let [query, key, value] = saved
            .inputs
            .map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
        let (grad_query, grad_key, grad_value, grad_bias) = B::attend_backward(
            query,
            key,
            value,
            saved.bias,
            saved.output,
            saved.statistics,
            grad,
            saved.options,
            node_bias.is_some(),
        );
        for (node, gradient) in [
            (node_query, Some(grad_query)),
            (node_key, Some(grad_key)),
            (node_value, Some(grad_value)),
            (node_bias, grad_bias),
        ] {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct FusedAttentionBackward;

impl<B: Backend + AttentionOps> Backward<B, 1> for FusedAttentionBackward {
    type State = (usize, Saved<1, FloatTensor<B>>);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let [node] = ops.parents;
        let (heads, saved) = ops.state;
        let [fused] = saved
            .inputs
            .map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
        if let Some(node) = node {
            let gradient = B::attend_fused_backward(
                fused,
                saved.bias,
                saved.output,
                saved.statistics,
                by_head::<B>(grad, heads),
                saved.options,
            );
            grads.register::<B>(node.id, gradient);
        }
    }
}

impl<B: Backend + AttentionOps, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn attend(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        let parents = [query.node(), key.node(), value.node(), bias.node()];
        let prepared = AttentionBackward
            .prepare::<C>(parents)
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prep) => {
                let inputs = [&query, &key, &value].map(|tensor| prep.checkpoint(tensor));
                let bias = bias.into_primitive();
                let (output, statistics) = B::attend_forward(
                    query.into_primitive(),
                    key.into_primitive(),
                    value.into_primitive(),
                    bias.clone(),
                    options.clone(),
                );
                let saved = Saved {
                    inputs,
                    bias,
                    output: output.clone(),
                    statistics,
                    options,
                };
                prep.finish(saved, output)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::attend(
                query.into_primitive(),
                key.into_primitive(),
                value.into_primitive(),
                bias.into_primitive(),
                options,
            )),
        }
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
        let prepared = FusedAttentionBackward
            .prepare::<C>([fused.node()])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prep) => {
                let inputs = [prep.checkpoint(&fused)];
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
                prep.finish((heads, saved), join::<B>(output))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::attend_fused(
                fused.into_primitive(),
                bias.into_primitive(),
                heads,
                options,
            )),
        }
    }
}
