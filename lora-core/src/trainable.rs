//! What of a module trains, what is frozen, and how much memory that is.

use crate::packed;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Int, Tensor};
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

/// Counts the float parameters of a module, adapters included. Those of a packed weight are counted as they are
/// unpacked, its bytes as they are packed.
pub fn trainable_summary<M: Module>(module: &M) -> TrainableSummary {
    let mut count = Count::default();
    // Only on an autodiff device does a parameter show whether it is to train.
    let autodiff = module.devices().iter().any(|device| device.is_autodiff());
    if autodiff {
        module.visit(&mut count);
    } else {
        module.clone().train().visit(&mut count);
    }
    count.summary
}

/// Counts; the parameters of packed weights are bytes only.
#[derive(Default)]
struct Count {
    summary: TrainableSummary,
    path: Vec<String>,
    containers: Vec<String>,
    /// Bytes that the parameter visited last would take if it were what it looks like.
    last: usize,
}

impl ModuleVisitor for Count {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.into());
        self.containers.push(container.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        if packed::within(&self.path, &self.containers) {
            let value = param.val();
            let bytes = value.shape().num_elements() * value.dtype().size();
            // The matrix itself is a placeholder.
            self.summary.frozen_bytes -= std::mem::take(&mut self.last);
            self.summary.frozen_bytes += bytes;
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.base();
        let elements = value.shape().num_elements();
        let bytes = elements * value.dtype().size();
        if packed::within(&self.path, &self.containers) {
            self.summary.frozen_bytes += bytes;
            return;
        }
        let adapter = self.containers.iter().any(|c| c == "Reparameterization");
        if value.is_require_grad() {
            self.summary.trainable += elements;
            self.summary.trainable_bytes += bytes;
        } else {
            self.summary.frozen += elements;
            self.summary.frozen_bytes += bytes;
            if !adapter {
                self.last = bytes;
            }
        }
    }
}
