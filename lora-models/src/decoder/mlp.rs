//! MLP with a gate.

use crate::activation::Activation;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::LoraLinear;

/// MLP with a gate: `down(act(gate(x)) ∘ up(x))`.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Projections of gate and up.
    pub gate_up: GateUp,
    /// Last layer, `[intermediate_size, hidden_size]`.
    pub down_proj: LoraLinear,
    #[module(skip)]
    pub(super) activation: Activation,
}

/// Projections of gate and up. The variants' names are not part of paths in transformers.
#[derive(Module, Debug)]
pub enum GateUp {
    /// A projection each.
    Separate(SeparateGate),
    /// One projection, `[hidden_size, 2 · intermediate_size]`.
    Fused(LoraLinear),
}

/// A projection each for gate and up.
#[derive(Module, Debug)]
pub struct SeparateGate {
    /// Gate, `[hidden_size, intermediate_size]`.
    pub gate_proj: LoraLinear,
    /// Up, `[hidden_size, intermediate_size]`.
    pub up_proj: LoraLinear,
}

impl Mlp {
    /// Applies the MLP.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    /// - returns `[batch, seq, hidden_size]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (gate, up) = match &self.gate_up {
            GateUp::Separate(all) => (all.gate_proj.forward(x.clone()), all.up_proj.forward(x)),
            GateUp::Fused(all) => {
                let fused = all.forward(x);
                let inner = fused.dims()[2] / 2;
                (
                    fused.clone().narrow(2, 0, inner),
                    fused.narrow(2, inner, inner),
                )
            }
        };
        self.down_proj.forward(self.activation.gated(gate, up))
    }
}
