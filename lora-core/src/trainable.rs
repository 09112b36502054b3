//! What of a module trains, what is frozen, and how much memory that is.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use std::fmt;

/// Counts of a module's parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainableSummary {
    /// Parameters that get gradients.
    pub trainable: usize,
    /// Parameters that do not.
    pub frozen: usize,
    /// Bytes of those that do.
    pub trainable_bytes: usize,
    /// Bytes of those that do not.
    pub frozen_bytes: usize,
}

impl TrainableSummary {
    /// All parameters.
    pub fn total(&self) -> usize {
        self.trainable + self.frozen
    }

    /// Share of the parameters that train, in per cent.
    pub fn percent(&self) -> f64 {
        100.0 * self.trainable as f64 / self.total().max(1) as f64
    }
}

impl fmt::Display for TrainableSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes as f64 / (1024.0 * 1024.0);
        write!(
            f,
            "{} of {} parameters train ({:.3} %): {:.2} MiB trainable, {:.2} MiB frozen",
            self.trainable,
            self.total(),
            self.percent(),
            mib(self.trainable_bytes),
            mib(self.frozen_bytes)
        )
    }
}

/// Counts the float parameters of a module, adapters included.
pub fn trainable_summary<M: Module>(module: &M) -> TrainableSummary {
    let mut count = Count::default();
    // Only on an autodiff device does a parameter show whether it is to train.
    let autodiff = module.devices().iter().any(|device| device.is_autodiff());
    if autodiff {
        module.visit(&mut count);
    } else {
        module.clone().train().visit(&mut count);
    }
    count.0
}

#[derive(Default)]
struct Count(TrainableSummary);

impl ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.base();
        let elements = value.shape().num_elements();
        let bytes = elements * value.dtype().size();
        if value.is_require_grad() {
            self.0.trainable += elements;
            self.0.trainable_bytes += bytes;
        } else {
            self.0.frozen += elements;
            self.0.frozen_bytes += bytes;
        }
    }
}
