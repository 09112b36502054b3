//! AdamW with PyTorch's defaults; norm, clipping and scaling of all gradients together.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use lora_core::ops::sum_of_all;
use serde::{Deserialize, Serialize};

/// Options of AdamW. The defaults are PyTorch's, which differ from Burn's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// β₁: decay of the running mean of the gradients.
    pub beta1: f64,
    /// β₂: decay of the running mean of the squared gradients.
    pub beta2: f64,
    /// Epsilon, added to the square root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, applied to matrices only.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
        }
    }
}

impl AdamW {
    /// Builds the optimizer for a module. Vectors, that is biases and norms, get no weight decay.
    pub fn init<M: Module>(&self, module: &M) -> ModuleOptimizer {
        let config = AdamWConfig::new()
            .with_beta_1(self.beta1 as f32)
            .with_beta_2(self.beta2 as f32)
            .with_epsilon(self.epsilon as f32);
        let mut vectors = Vectors(Vec::new());
        module.visit(&mut vectors);
        config
            .clone()
            .with_weight_decay(self.weight_decay as f32)
            .init()
            .with_group(
                ParamGroup::from_ids(vectors.0),
                config.with_weight_decay(0.0).build(),
                None,
            )
    }
}

struct Vectors(Vec<ParamId>);

impl ModuleVisitor for Vectors {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D < 2 {
            self.0.push(param.id);
        }
    }
}

/// Computes the squared norm of all gradients together, `[1]`; `None` if there are no gradients.
pub(super) fn squared_norm<M: Module>(module: &M, grads: &GradientsParams) -> Option<Tensor<1>> {
    let mut sum = SquaredNorm { grads, sum: None };
    module.visit(&mut sum);
    sum.sum
}

struct SquaredNorm<'a> {
    grads: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            let square = sum_of_all(grad.square());
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

/// Factor on all gradients.
pub(super) enum Factor {
    /// Number on the host.
    Host(f64),
    /// Number on the device, `[1]`.
    Device(Box<Tensor<1>>),
}

/// Added to the norm, as PyTorch's `clip_grad_norm_` does against a division by zero.
const NORM_EPSILON: f64 = 1e-6;

impl Factor {
    /// Returns the factor that scales gradients of this norm down to the norm `max`; `None` if they are smaller.
    pub(super) fn clip(norm: f64, max: f64) -> Option<Self> {
        let factor = max / (norm + NORM_EPSILON);
        (factor < 1.0).then_some(Self::Host(factor))
    }

    /// Computes the factor that scales gradients down to the norm `max` on the device, from their squared norm `[1]`. It is 1
    /// for smaller gradients.
    pub(super) fn clip_on_device(squared_norm: Tensor<1>, max: f64) -> Self {
        let factor = (squared_norm.sqrt() + NORM_EPSILON).recip() * max;
        Self::Device(Box::new(factor.clamp_max(1.0)))
    }
}

/// Multiplies every gradient by `factor`.
pub(super) fn scale<M: Module>(
    module: &M,
    grads: GradientsParams,
    factor: Factor,
) -> GradientsParams {
    let mut scaled = Scale { grads, factor };
    module.visit(&mut scaled);
    scaled.grads
}

struct Scale {
    grads: GradientsParams,
    factor: Factor,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            let scaled = match &self.factor {
                Factor::Host(factor) => grad.mul_scalar(*factor),
                Factor::Device(factor) => grad * (**factor).clone().reshape([1; D]),
            };
            self.grads.register(param.id, scaled);
        }
    }
}
