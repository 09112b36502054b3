//! A linear layer that reads its adapter on the activation path.

use crate::LoraAdapter;
use crate::ops::linear;
use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// Configuration of a [`LoraLinear`].
#[derive(Config, Debug)]
pub struct LoraLinearConfig {
    /// Size of the input features.
    pub d_input: usize,
    /// Size of the output features.
    pub d_output: usize,
    /// Whether there is a bias. Default true.
    #[config(default = true)]
    pub bias: bool,
}

/// `y = x W + b`, and with an adapter `y = x W + b + s (drop(x) A) B`, Hu et al. 2021, equation (3).
///
/// Without an adapter it is Burn's [`Linear`], with the same parameters under the same names.
/// [`attach`](crate::attach()) puts the adapter on `weight`, and a [`LoraBias`](crate::LoraBias) on `bias`.
#[derive(Module, Debug)]
pub struct LoraLinear {
    /// `[d_input, d_output]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl LoraLinearConfig {
    /// A layer that starts as Burn's [`LinearConfig`] does.
    pub fn init(&self, device: &Device) -> LoraLinear {
        LinearConfig::new(self.d_input, self.d_output)
            .with_bias(self.bias)
            .init(device)
            .into()
    }
}

impl From<Linear> for LoraLinear {
    fn from(linear: Linear) -> Self {
        Self {
            weight: linear.weight,
            bias: linear.bias,
        }
    }
}

impl LoraLinear {
    /// The adapter on the weight, if there is one.
    pub fn adapter(&self) -> Option<&LoraAdapter> {
        self.weight.reparameterization::<LoraAdapter>()
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - `x`: `[..., d_input]`
    /// - returns `[..., d_output]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_input`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        match self.adapter().filter(|adapter| adapter.is_enabled()) {
            None => linear(x, self.weight.val(), bias),
            Some(adapter) => adapter.linear(x, self.weight.base(), bias),
        }
    }
}
