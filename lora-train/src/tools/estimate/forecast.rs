//! Forecast of a run.

use super::calibrate::Calibration;
use super::weights::Counts;
use crate::tools::text::rows;
use crate::trainer::ranks::bytes_sent;
use serde::Serialize;
use std::fmt;

const MIB: f64 = (1 << 20) as f64;
/// Maximum batch size of the forecast.
const MOST: usize = 1 << 20;

/// Forecast of a run. Memory is in MiB.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Forecast {
    /// Name of the model.
    pub model: String,
    /// Description of the method.
    pub method: String,
    /// Number of examples in a batch.
    pub batch_size: usize,
    /// Number of tokens in an example.
    pub max_length: usize,
    /// Number of parameters of the model.
    pub parameters: usize,
    /// Number of trainable parameters.
    pub trainable: usize,
    /// Memory of all weights, adapters included.
    pub weights_mib: f64,
    /// Memory of the gradients.
    pub gradients_mib: f64,
    /// Memory of AdamW's moments.
    pub optimizer_mib: f64,
    /// Size of the saved file in f32.
    pub saved_mib: f64,
    /// Size of the saved file in 16 bits.
    pub saved_half_mib: f64,
    /// Number of ranks, if it was given.
    pub ranks: Option<usize>,
    /// Memory that each rank sends to the others in a step, and receives.
    pub exchange_mib: Option<f64>,
    /// Peak of the activations and temporary tensors; `None` if not measured.
    pub activations_mib: Option<f64>,
    /// Memory of the program itself.
    pub program_mib: Option<f64>,
    /// Peak of all memory.
    pub peak_mib: Option<f64>,
    /// Duration of a step in seconds.
    pub step_s: Option<f64>,
    /// Duration of an epoch in seconds, for the given number of examples.
    pub epoch_s: Option<f64>,
    /// Available memory.
    pub available_mib: Option<f64>,
    /// Maximum batch size for the available memory; 0 if no example fits.
    pub largest_batch: Option<usize>,
    /// Reason that nothing was measured, if so.
    pub not_calibrated: Option<String>,
}

impl Forecast {
    /// Adds the numbers that are counted.
    pub(super) fn add_counts(&mut self, counts: &Counts) {
        let mib = |bytes: usize| bytes as f64 / MIB;
        self.parameters = counts.parameters;
        self.trainable = counts.trainable;
        self.weights_mib = mib(counts.weights_bytes);
        self.gradients_mib = mib(counts.gradients_bytes());
        self.optimizer_mib = mib(counts.optimizer_bytes());
        self.saved_mib = mib(counts.trainable * 4);
        self.saved_half_mib = mib(counts.trainable * 2);
    }

    /// Adds the exchange of a number of ranks.
    pub(super) fn add_ranks(&mut self, ranks: usize) {
        self.ranks = Some(ranks);
        self.exchange_mib = Some(bytes_sent(self.trainable, ranks) as f64 / MIB);
    }

    /// Adds the numbers that measurements of few layers give.
    pub(super) fn add_calibration(&mut self, found: &Calibration, examples: Option<usize>) {
        let batch = self.batch_size as f64;
        let step = found.seconds.at(found.layers, batch).max(0.0);
        let steps = examples.map(|examples| examples.div_ceil(self.batch_size));
        self.step_s = Some(step);
        self.epoch_s = steps.map(|steps| step * steps as f64);
        self.program_mib = Some(found.program_mib);
        let Some(peak) = found.peak_mib else {
            return;
        };
        let peak_at = |examples: f64| peak.at(found.layers, examples) + found.program_mib;
        let counted = self.weights_mib + self.gradients_mib + self.optimizer_mib;
        let activations = peak_at(batch) - found.program_mib - counted;
        self.peak_mib = Some(peak_at(batch));
        self.activations_mib = Some(activations.max(0.0));
        self.largest_batch = self.available_mib.map(|available| {
            let each = (peak_at(1.0) - peak_at(0.0)).max(1e-6);
            let fitting = ((available - peak_at(0.0)) / each).floor();
            fitting.clamp(0.0, MOST as f64) as usize
        });
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |mib: f64| format!("{mib:.1} MiB");
        let batch = format!("{} examples of {} tokens", self.batch_size, self.max_length);
        let trains = format!("{} of {} parameters", self.trainable, self.parameters);
        let saved = format!(
            "{}, {:.1} in 16 bits",
            mib(self.saved_mib),
            self.saved_half_mib
        );
        let largest = self.available_mib.zip(self.largest_batch);
        let largest = largest.map(|(mib, batch)| format!("{batch} examples in {mib:.0} MiB"));
        let exchange = self.ranks.zip(self.exchange_mib);
        let exchange = exchange
            .map(|(ranks, sent)| format!("{} sent by each of {ranks} ranks in a step", mib(sent)));
        let table = [
            ("model", Some(self.model.clone())),
            ("method", Some(self.method.clone())),
            ("batch", Some(batch)),
            ("trains", Some(trains)),
            ("weights", Some(mib(self.weights_mib))),
            ("gradients", Some(mib(self.gradients_mib))),
            ("optimizer", Some(mib(self.optimizer_mib))),
            ("activations", self.activations_mib.map(mib)),
            ("program", self.program_mib.map(mib)),
            ("peak", self.peak_mib.map(mib)),
            ("saved", Some(saved)),
            ("exchange", exchange),
            ("largest batch", largest),
            ("step", self.step_s.map(|step| format!("{step:.3} s"))),
            ("epoch", self.epoch_s.map(|epoch| format!("{epoch:.0} s"))),
            ("not measured", self.not_calibrated.clone()),
        ];
        rows(f, 14, table)
    }
}
