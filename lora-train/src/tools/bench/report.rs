//! Report of a measurement, as text and as one line of JSON.

use super::Timing;
use crate::memory::peak_mib;
use crate::tools::text::rows;
use burn::tensor::Device;
use lora_core::ops::device_memory_bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Report of a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// Kind of the measurement: `step`, `epoch`, `inference` or `load`.
    pub bench: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// Name of the model.
    pub model: String,
    /// Description of the device.
    pub device: String,
    /// Description of the method.
    pub method: String,
    /// Median duration of a turn, in seconds.
    pub median_s: f64,
    /// Minimum duration of a turn, in seconds.
    pub min_s: f64,
    /// Peak memory of the process in MiB, if the system reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<f64>,
    /// Device memory that the backend holds at the end in MiB, if it reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_mib: Option<f64>,
    /// Number of trainable parameters.
    pub trainable: usize,
    /// Further values by name.
    #[serde(flatten)]
    pub more: BTreeMap<&'static str, f64>,
}

impl BenchReport {
    pub(super) fn new(
        bench: &'static str,
        model: String,
        method: String,
        device: &Device,
        timing: &Timing,
        trainable: usize,
    ) -> Self {
        Self {
            bench,
            version: env!("CARGO_PKG_VERSION"),
            model,
            device: crate::device::describe(&device.clone().inner()),
            method,
            median_s: timing.median(),
            min_s: timing.min(),
            peak_mib: peak_mib(),
            device_mib: device_memory_bytes(device).map(|bytes| bytes as f64 / (1 << 20) as f64),
            trainable,
            more: BTreeMap::new(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.more.insert(name, value);
        self
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = [
            ("model", Some(self.model.clone())),
            ("device", Some(self.device.clone())),
            ("method", Some(self.method.clone())),
            ("median_s", Some(rounded(self.median_s))),
            ("min_s", Some(rounded(self.min_s))),
            ("peak_mib", self.peak_mib.map(rounded)),
            ("device_mib", self.device_mib.map(rounded)),
            ("trainable", Some(self.trainable.to_string())),
        ];
        let more = self.more.iter();
        let more = more.map(|(name, value)| (*name, Some(rounded(*value))));
        rows(f, 20, table.into_iter().chain(more))
    }
}

/// Formats a number with four significant digits.
fn rounded(value: f64) -> String {
    let whole = value.abs().max(1e-9).log10().floor() as i32;
    let digits = (3 - whole).clamp(0, 9) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits_that_count() {
        assert_eq!(rounded(2.94567), "2.946");
        assert_eq!(rounded(0.0381234), "0.03812");
        assert_eq!(rounded(3252.4), "3252");
        assert_eq!(rounded(0.0), "0.000000000");
    }

    #[test]
    fn a_line_of_json_has_the_documented_keys() {
        let timing = Timing::new(vec![2.0, 1.0]);
        let device = Device::default();
        let report = BenchReport::new("step", "gpt2".into(), "full".into(), &device, &timing, 7)
            .with("x", 3.0);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["median_s"], 1.5);
        assert_eq!(json["min_s"], 1.0);
        assert_eq!(json["trainable"], 7);
        assert_eq!(json["x"], 3.0);
        assert!(report.to_string().contains("median_s             1.500"));
    }
}
