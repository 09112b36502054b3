//! Gated activations (Shazeer 2020, arXiv 2002.05202): `act(gate) ∘ up`, with SiLU (SwiGLU) or GELU (GeGLU).
//!
//! Only `gate` and `up` are kept for the backward pass. With the gradient g of the product, `∂up = g act(gate)` and
//! `∂gate = g up act'(gate)`; the derivative of SiLU is `s (1 + x (1 - s))` with `s = sigmoid(x)`.

use super::gelu::{self, GeluKind};
use super::prelude::*;
use burn::tensor::Tensor;

/// Activation of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateKind {
    /// `x sigmoid(x)`.
    Silu,
    /// GELU of this kind.
    Gelu(GeluKind),
}

backend_operations! {
    /// Gated activations on a backend.
    ///
    /// # Shapes
    /// - all tensors: `[...]`, of one shape
    pub trait GatedOps {
        /// Computes `act(gate) ∘ up`.
        #[fusion(default)]
        fn gated_by_kind(
            gate: FloatTensor<Self>,
            up: FloatTensor<Self>,
            kind: GateKind,
        ) -> FloatTensor<Self> {
            Self::float_mul(activated::<Self>(gate, kind), up)
        }

        /// Computes `∂gate` and `∂up`.
        #[fusion(default)]
        fn gated_by_kind_backward(
            gate: FloatTensor<Self>,
            up: FloatTensor<Self>,
            grad: FloatTensor<Self>,
            kind: GateKind,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            composed_backward::<Self>(gate, up, grad, kind)
        }
    }
}

/// Computes the activation.
fn activated<B: Backend>(x: FloatTensor<B>, kind: GateKind) -> FloatTensor<B> {
    match kind {
        GateKind::Silu => B::float_mul(B::sigmoid(x.clone()), x),
        GateKind::Gelu(kind) => gelu::composed::<B>(x, kind),
    }
}

fn composed_backward<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    grad: FloatTensor<B>,
    kind: GateKind,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let grad_up = B::float_mul(grad.clone(), activated::<B>(gate.clone(), kind));
    let through = B::float_mul(grad, up);
    let grad_gate = match kind {
        GateKind::Silu => {
            let share = B::sigmoid(gate.clone());
            let rest = B::float_add_scalar(B::float_neg(share.clone()), 1.0.into());
            let slope = B::float_add_scalar(B::float_mul(gate, rest), 1.0.into());
            B::float_mul(through, B::float_mul(share, slope))
        }
        GateKind::Gelu(kind) => gelu::composed_backward::<B>(gate, through, kind),
    };
    (grad_gate, grad_up)
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, GateKind, GatedOps, GeluKind, activated, composed_backward};
    use crate::ops::contiguous::{are_plain_f32, contiguous};
    use crate::ops::kernels;
    use burn::backend::ops::FloatTensorOps;
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::TensorData;

    impl GatedOps for Flex {
        fn gated_by_kind(
            gate: FloatTensor<Self>,
            up: FloatTensor<Self>,
            kind: GateKind,
        ) -> FloatTensor<Self> {
            if !are_plain_f32(&[&gate, &up]) {
                return Self::float_mul(activated::<Self>(gate, kind), up);
            }
            let [gate, up] = [gate, up].map(contiguous);
            let values = [gate.storage::<f32>(), up.storage::<f32>()];
            let y = match kind {
                GateKind::Silu => kernels::gated(values, kernels::silu),
                GateKind::Gelu(GeluKind::Exact) => kernels::gated(values, kernels::gelu),
                GateKind::Gelu(GeluKind::Tanh) => kernels::gated(values, kernels::gelu_tanh),
            };
            FloatTensor::<Self>::from_data(TensorData::new(y, gate.shape()))
        }

        fn gated_by_kind_backward(
            gate: FloatTensor<Self>,
            up: FloatTensor<Self>,
            grad: FloatTensor<Self>,
            kind: GateKind,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            if !are_plain_f32(&[&gate, &up, &grad]) {
                return composed_backward::<Self>(gate, up, grad, kind);
            }
            let [gate, up, mut grad] = [gate, up, grad].map(contiguous);
            let values = [gate.storage::<f32>(), up.storage::<f32>()];
            let grads = grad.storage_mut::<f32>();
            use kernels::gated_backward as backward;
            let grad_gate = match kind {
                GateKind::Silu => backward(values, grads, kernels::silu, kernels::silu_slope),
                GateKind::Gelu(GeluKind::Exact) => {
                    backward(values, grads, kernels::gelu, kernels::gelu_slope)
                }
                GateKind::Gelu(GeluKind::Tanh) => {
                    backward(values, grads, kernels::gelu_tanh, kernels::gelu_tanh_slope)
                }
            };
            let grad_gate = TensorData::new(grad_gate, gate.shape());
            (FloatTensor::<Self>::from_data(grad_gate), grad)
        }
    }
}

impl<B: Backend + GatedOps, C: CheckpointStrategy> GatedOps for Autodiff<B, C> {
    fn gated_by_kind(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        kind: GateKind,
    ) -> FloatTensor<Self> {
        let mut operation = Operation::<B, C, _, 2>::new([&gate, &up], backward);
        let state = ([&gate, &up].map(|input| operation.save(input)), kind);
        let [gate, up] = [gate, up].map(|tensor| tensor.into_primitive());
        operation.finish(state, B::gated_by_kind(gate, up, kind))
    }
}

fn backward<B: Backend + GatedOps>(
    pass: &mut BackwardPass<'_, B, 2>,
    grad: FloatTensor<B>,
    (inputs, kind): ([NodeId; 2], GateKind),
) {
    let [gate, up] = inputs.map(|input| pass.saved(input));
    let (gate, up) = B::gated_by_kind_backward(gate, up, grad, kind);
    pass.register(0, || gate);
    pass.register(1, || up);
}

/// Computes `act(gate) ∘ up`.
///
/// # Shapes
/// - `gate`, `up`: `[...]`, of one shape
/// - returns `[...]`
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::{GateKind, gated};
///
/// let device = Device::flex();
/// let gate = Tensor::<1>::from_floats([0.0, 3f32.ln()], &device);
/// let up = Tensor::<1>::from_floats([5.0, 2.0], &device);
/// let y = gated(gate, up, GateKind::Silu).into_data().to_vec::<f32>().unwrap();
/// // sigmoid(ln 3) = 3/4
/// assert!(y[0] == 0.0 && (y[1] - 1.5 * 3f32.ln()).abs() < 1e-6);
/// ```
///
/// # Panics
/// Panics on shapes that differ, and on a backend whose feature of this crate is off.
pub fn gated<const D: usize>(gate: Tensor<D>, up: Tensor<D>, kind: GateKind) -> Tensor<D> {
    assert_eq!(
        gate.dims(),
        up.dims(),
        "the shape of a gate and of what it gates"
    );
    Tensor::from_dispatch(<Dispatch as GatedOps>::gated_by_kind(
        gate.into_dispatch(),
        up.into_dispatch(),
        kind,
    ))
}
