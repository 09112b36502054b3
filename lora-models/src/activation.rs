//! Activation functions and their names in `config.json`.

use burn::tensor::{Tensor, activation};
use lora_core::ops::{GateKind, GeluKind, gated};

/// An activation function between two linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// GELU by the tanh approximation, as in GPT-2: `gelu_new`, `gelu_pytorch_tanh` and `gelu_fast` compute the same.
    GeluTanh,
    /// GELU by the error function: `gelu`.
    Gelu,
    /// Rectified linear unit: `relu`.
    Relu,
    /// `x · sigmoid(x)`: `silu` or `swish`.
    Silu,
    /// Hyperbolic tangent: `tanh`.
    Tanh,
}

impl Activation {
    /// All known names with their functions; the first name of a function is the one that is written.
    const NAMED: [(&str, Self); 8] = [
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu", Self::Gelu),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("tanh", Self::Tanh),
    ];

    /// Returns all known names.
    pub fn names() -> [&'static str; 8] {
        Self::NAMED.map(|(name, _)| name)
    }

    /// Returns the function of a name in `config.json`.
    ///
    /// ```
    /// use lora_models::activation::Activation;
    /// assert_eq!(Activation::from_name("gelu_new"), Some(Activation::GeluTanh));
    /// assert_eq!(Activation::from_name("quick_gelu"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        let mut named = Self::NAMED.into_iter();
        named.find(|(other, _)| *other == name).map(|named| named.1)
    }

    /// Returns the name that is written to `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::GeluTanh => "gelu_new",
            Self::Gelu => "gelu",
            Self::Relu => "relu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
        }
    }

    /// Applies the function to each element.
    ///
    /// # Shapes
    /// - `x`: `[...]`
    /// - returns `[...]`
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::GeluTanh => lora_core::ops::gelu_tanh(x),
            Self::Gelu => lora_core::ops::gelu(x),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
            Self::Tanh => activation::tanh(x),
        }
    }

    /// Computes the function of a gate times what it gates.
    ///
    /// # Shapes
    /// - `gate`, `up`: `[...]`, of one shape
    /// - returns `[...]`
    pub fn gated<const D: usize>(self, gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
        let kind = match self {
            Self::Silu => GateKind::Silu,
            Self::Gelu => GateKind::Gelu(GeluKind::Exact),
            Self::GeluTanh => GateKind::Gelu(GeluKind::Tanh),
            Self::Relu | Self::Tanh => return self.forward(gate) * up,
        };
        gated(gate, up, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn every_name_has_a_function_and_every_function_its_name() {
        for name in Activation::names() {
            let activation = Activation::from_name(name).unwrap();
            assert_eq!(Activation::from_name(activation.name()), Some(activation));
        }
    }

    /// Compares with values by PyTorch 2.15, `torch.nn.functional.gelu(x, approximate="tanh")` in f64.
    #[test]
    fn gelu_by_tanh_is_pytorchs() {
        let x = [-10.0, -3.0, -1.0, -0.1, 0.0, 0.5, 2.0, 30.0];
        let expected = [
            0.0,
            -0.0036373920817729943,
            -0.15880800939172324,
            -0.04601724895456484,
            0.0,
            0.34571400982514394,
            1.954597694087775,
            30.0,
        ];
        let x = Tensor::<1>::from_floats(x, &Device::flex());
        let y = Activation::GeluTanh.forward(x).into_data();
        for (found, expected) in y.iter::<f64>().zip(expected) {
            // A few units in the last place of f32.
            assert!(
                (found - expected).abs() <= 4e-7 * expected.abs().max(0.1),
                "{found} {expected}"
            );
        }
    }
}
