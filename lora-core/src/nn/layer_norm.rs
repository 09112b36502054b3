//! Layer normalization with one backward pass.

use crate::ops::layer_norm;
use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

/// Configuration of a [`LayerNorm`].
#[derive(Config, Debug)]
pub struct LayerNormConfig {
    /// Size of the features.
    pub d_model: usize,
    /// Epsilon, added to the variance. Default 1e-5.
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

/// `y = γ (x - mean)/√(variance + ε) + β` over the last axis (Ba et al. 2016, arXiv 1607.06450).
///
/// It computes Burn's [`LayerNorm`](burn::nn::LayerNorm), with the same parameters under the same names, and keeps only the
/// input for the backward pass.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Scale, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    /// Shift, `[d_model]`.
    pub beta: Param<Tensor<1>>,
    epsilon: f64,
}

impl LayerNormConfig {
    /// Creates a layer with scale 1 and shift 0.
    pub fn init(&self, device: &Device) -> LayerNorm {
        let init = |initializer: Initializer| initializer.init([self.d_model], device);
        self.init_with(init(Initializer::Ones), init(Initializer::Zeros))
    }

    /// Creates a layer with these parameters.
    pub fn init_with(&self, gamma: Param<Tensor<1>>, beta: Param<Tensor<1>>) -> LayerNorm {
        LayerNorm {
            gamma,
            beta,
            epsilon: self.epsilon,
        }
    }
}

impl LayerNorm {
    /// Normalizes the last axis.
    ///
    /// # Shapes
    /// - `x`: `[..., d_model]`
    /// - returns `[..., d_model]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_model`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.gamma.val(), self.beta.val(), self.epsilon)
    }
}
