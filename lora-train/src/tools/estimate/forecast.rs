//! Forecast of a run.

use super::calibrate::Calibration;
use super::weights::Counts;
use crate::tools::text::rows;
use serde::Serialize;
use std::fmt;

const MIB: f64 = (1 << 20) as f64;
/// Maximum batch size of the forecast.
const MOST: usize = 1 << 20;

/// Forecast of a run. Memory is in MiB.
#[derive(Clone, Debug, Serialize)]
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
    pub(super) fn new(
        model: String,
        method: String,
        [batch_size, max_length]: [usize; 2],
        counts: Counts,
        calibration: Result<Calibration, String>,
        available_mib: Option<f64>,
        examples: Option<usize>,
    ) -> Self {
        let mib = |bytes: usize| bytes as f64 / MIB;
        let (not_calibrated, calibration) = match calibration {
            Ok(found) => (None, Some(found)),
            Err(reason) => (Some(reason), None),
        };
        let counted =
            mib(counts.weights_bytes + counts.gradients_bytes() + counts.optimizer_bytes());
        let peak_at = |examples: f64| {
            let found = calibration?;
            Some(found.peak_mib?.at(found.layers, examples) + found.program_mib)
        };
        let peak_mib = peak_at(batch_size as f64);
        let program_mib = calibration.map(|found| found.program_mib);
        let step_s =
            calibration.map(|found| found.seconds.at(found.layers, batch_size as f64).max(0.0));
        let epoch_s = step_s.zip(examples);
        let largest_batch = available_mib.and_then(|available| {
            let (none, one) = (peak_at(0.0)?, peak_at(1.0)?);
            let each = (one - none).max(1e-6);
            let fitting = ((available - none) / each).floor();
            Some(fitting.clamp(0.0, MOST as f64) as usize)
        });
        Self {
            model,
            method,
            batch_size,
            max_length,
            parameters: counts.parameters,
            trainable: counts.trainable,
            weights_mib: mib(counts.weights_bytes),
            gradients_mib: mib(counts.gradients_bytes()),
            optimizer_mib: mib(counts.optimizer_bytes()),
            saved_mib: mib(counts.saved * 4),
            saved_half_mib: mib(counts.saved * 2),
            activations_mib: peak_mib
                .zip(program_mib)
                .map(|(peak, program)| (peak - program - counted).max(0.0)),
            program_mib,
            peak_mib,
            step_s,
            epoch_s: epoch_s.map(|(step, examples)| step * examples.div_ceil(batch_size) as f64),
            available_mib,
            largest_batch,
            not_calibrated,
        }
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
            ("largest batch", largest),
            ("step", self.step_s.map(|step| format!("{step:.3} s"))),
            ("epoch", self.epoch_s.map(|epoch| format!("{epoch:.0} s"))),
            ("not measured", self.not_calibrated.clone()),
        ];
        rows(f, 14, table)
    }
}
