//! The one backward pass of the adapted projection, for every backend.

use super::{LinearOps, LoraOps};
use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::{Autodiff, Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Shape;

#[derive(Debug)]
struct LoraLinearBackward;

/// What the forward pass keeps. `x` itself is not among it: only its adapter copy is needed, and
/// without dropout the two are one tensor.
#[derive(Clone, Debug)]
struct Saved<W> {
    adapter_x: NodeId,
    w: W,
    a: NodeId,
    b: NodeId,
    scale: f64,
}

impl<B: Backend + LinearOps> Backward<B, 4> for LoraLinearBackward {
    type State = Saved<FloatTensor<B>>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [node_x, node_adapter_x, node_a, node_b] = ops.parents;
        let Saved {
            adapter_x,
            w,
            a,
            b,
            scale,
        } = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let a = checkpointer.retrieve_node_output::<FloatTensor<B>>(a);
        let b = checkpointer.retrieve_node_output::<FloatTensor<B>>(b);
        let adapter_x = checkpointer.retrieve_node_output::<FloatTensor<B>>(adapter_x);

        if let Some(node) = node_b {
            let low = B::linear(adapter_x.clone(), a.clone(), None);
            let low = B::float_mul_scalar(low, scale.into());
            grads.register::<B>(node.id, B::linear_weight_backward(low, grad.clone()));
        }
        if node_a.is_some() || node_adapter_x.is_some() {
            let grad_low = B::linear_x_backward(b, grad.clone());
            let grad_low = B::float_mul_scalar(grad_low, scale.into());
            if let Some(node) = node_a {
                let grad_a = B::linear_weight_backward(adapter_x, grad_low.clone());
                grads.register::<B>(node.id, grad_a);
            }
            if let Some(node) = node_adapter_x {
                grads.register::<B>(node.id, B::linear_x_backward(a, grad_low));
            }
        }
        if let Some(node) = node_x {
            grads.register::<B>(node.id, input_gradient::<B>(w, grad));
        }
    }
}

/// `g Wᵀ`.
fn input_gradient<B: Backend + LinearOps>(
    w: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> FloatTensor<B> {
    let [d_in, d_out] = w.shape().dims();
    let mut shape = grad.shape();
    let rows = shape.num_elements() / d_out;
    let last = shape.num_dims() - 1;
    shape[last] = d_in;
    let grad = B::float_reshape(grad, Shape::new([rows, d_out]));
    B::float_reshape(B::project(grad, B::float_swap_dims(w, 0, 1)), shape)
}

impl<B: Backend + LoraOps + LinearOps, C: CheckpointStrategy> LoraOps for Autodiff<B, C> {
    fn lora_linear(
        x: FloatTensor<Self>,
        adapter_x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self> {
        let parents = [x.node(), adapter_x.node(), a.node(), b.node()];
        match LoraLinearBackward
            .prepare::<C>(parents)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let saved = Saved {
                    adapter_x: prep.checkpoint(&adapter_x),
                    w: w.primitive().clone(),
                    a: prep.checkpoint(&a),
                    b: prep.checkpoint(&b),
                    scale,
                };
                let y = B::lora_linear(
                    x.into_primitive(),
                    adapter_x.into_primitive(),
                    w.into_primitive(),
                    a.into_primitive(),
                    b.into_primitive(),
                    scale,
                );
                prep.finish(saved, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::lora_linear(
                x.into_primitive(),
                adapter_x.into_primitive(),
                w.into_primitive(),
                a.into_primitive(),
                b.into_primitive(),
                scale,
            )),
        }
    }
}
