//! Counts of trainable and frozen parameters, and the memory that they take.

use crate::layout::{is_in_packed, reparameterization_depth};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Int, Tensor};
use std::fmt;

/// Counts of a module's parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainableSummary {
    /// Number of trainable parameters.
    pub trainable: usize,
    /// Number of frozen parameters.
    pub frozen: usize,
    /// Size of the trainable parameters, in bytes.
    pub trainable_bytes: usize,
    /// Size of the frozen parameters, in bytes.
    pub frozen_bytes: usize,
}

impl TrainableSummary {
    /// Returns the number of all parameters.
    pub fn total(&self) -> usize {
        self.trainable + self.frozen
    }

    /// Returns the share of trainable parameters, in per cent.
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

/// Counts the float parameters of a module, adapters included. A packed weight counts with the number of its unpacked values
/// and the bytes of its packed ones.
pub fn trainable_summary<M: Module>(module: &M) -> TrainableSummary {
    let mut count = Count::default();
    // A parameter shows only on an autodiff device that it is trainable.
    let autodiff = module.devices().iter().any(|device| device.is_autodiff());
    if autodiff {
        module.visit(&mut count);
    } else {
        module.clone().train().visit(&mut count);
    }
    count.summary
}

/// The walk that counts.
#[derive(Default)]
struct Count {
    summary: TrainableSummary,
    path: Vec<String>,
    containers: Vec<String>,
    /// Size in bytes of the parameter visited last, if it is a placeholder for a packed weight.
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
        if is_in_packed(&self.path, &self.containers) {
            let value = param.val();
            let bytes = value.shape().num_elements() * value.dtype().size();
            // The matrix itself is a placeholder without memory.
            self.summary.frozen_bytes -= std::mem::take(&mut self.last);
            self.summary.frozen_bytes += bytes;
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.base();
        let elements = value.shape().num_elements();
        let bytes = elements * value.dtype().size();
        if is_in_packed(&self.path, &self.containers) {
            self.summary.frozen_bytes += bytes;
            return;
        }
        let adapter = reparameterization_depth(&self.containers).is_some();
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
