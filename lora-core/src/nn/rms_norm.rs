//! Normalization by the root mean square with one backward pass.

use crate::ops::rms_norm;
use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// Scale of the features in terms of the stored weight.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum RmsScale {
    /// The weight itself.
    Weight,
    /// The weight plus one, as in Gemma.
    OnePlusWeight,
}

/// Configuration of an [`RmsNorm`].
#[derive(Config, Debug)]
pub struct RmsNormConfig {
    /// Scale of the features. Default: the weight.
    #[config(default = "RmsScale::Weight")]
    pub scale: RmsScale,
    /// Epsilon, added to the mean square. Default 1e-6.
    #[config(default = 1e-6)]
    pub epsilon: f64,
}

/// `y = γ x/√(mean(x²) + ε)` over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467), computed in f32 at least.
///
/// The factor γ is the weight, or one plus the weight.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Weight, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    #[module(skip)]
    scale: RmsScale,
    epsilon: f64,
}

impl RmsNormConfig {
    /// Creates a layer with this weight.
    pub fn init_with(&self, gamma: Param<Tensor<1>>) -> RmsNorm {
        RmsNorm {
            gamma,
            scale: self.scale,
            epsilon: self.epsilon,
        }
    }
}

impl RmsNorm {
    /// Normalizes the last axis.
    ///
    /// # Shapes
    /// - `x`: `[..., d_model]`
    /// - returns `[..., d_model]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_model`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gamma = self.gamma.val();
        let gamma = match self.scale {
            RmsScale::Weight => gamma,
            RmsScale::OnePlusWeight => gamma + 1.0,
        };
        rms_norm(x, gamma, self.epsilon)
    }
}
