//! Counts of trainable and frozen parameters, and the memory that they take.

use crate::layout::{Place, Visit, visit};
use burn::module::{Module, Param};
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
    // A parameter shows only on an autodiff device that it is trainable.
    if module.devices().iter().any(|device| device.is_autodiff()) {
        visit(module, Count::default()).summary
    } else {
        visit(&module.clone().train(), Count::default()).summary
    }
}

/// The walk that counts.
#[derive(Default)]
struct Count {
    summary: TrainableSummary,
    /// Size in bytes of the frozen parameter visited last, which is a placeholder if a packed or split weight follows.
    last: usize,
}

impl Visit for Count {
    fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        let value = param.base();
        let elements = value.shape().num_elements();
        let bytes = elements * value.dtype().size();
        if place.is_storage() {
            self.replace_placeholder(bytes);
        } else if value.is_require_grad() {
            self.summary.trainable += elements;
            self.summary.trainable_bytes += bytes;
        } else {
            self.summary.frozen += elements;
            self.summary.frozen_bytes += bytes;
            if !place.is_attached() {
                self.last = bytes;
            }
        }
    }

    fn int<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D, Int>>) {
        if place.is_packed() {
            let value = param.val();
            self.replace_placeholder(value.shape().num_elements() * value.dtype().size());
        }
    }
}

impl Count {
    /// Counts the bytes that hold a weight; the matrix itself is a placeholder without memory.
    fn replace_placeholder(&mut self, bytes: usize) {
        self.summary.frozen_bytes -= std::mem::take(&mut self.last);
        self.summary.frozen_bytes += bytes;
    }
}
