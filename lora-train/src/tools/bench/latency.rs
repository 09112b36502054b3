//! Latency of a forward pass by batch and length: the base, LoRA merged into it, and another method (Hu et al. 2021, table 1).

use super::inference::{InferenceOptions, forwarded, read, refuse_frozen};
use super::measure::Timing;
use super::step::adapted;
use super::workload::{BatchSize, Shape};
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::jobs::batch_limit::BatchLimit;
use crate::jobs::ranges::at_least_one;
use crate::options::Method;
use burn::tensor::Device;
use lora_core::{merge, trainable_summary};
use lora_models::{Pretrained, dispatch};
use serde::Serialize;
use std::fmt;

/// Latencies for a batch and a length, medians in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LatencyRow {
    /// Number of texts.
    pub batch_size: usize,
    /// Number of tokens in each.
    pub max_length: usize,
    /// Latency of the base.
    pub base_ms: f64,
    /// Latency with LoRA merged into the weights.
    pub merged_ms: f64,
    /// Latency of the method.
    pub method_ms: f64,
    /// Time of the merged model over the base, in per cent.
    pub merged_percent: f64,
    /// Time of the method over the base, in per cent.
    pub method_percent: f64,
}

/// Latencies of a method.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyReport {
    /// Kind of the measurement, `latency`.
    pub bench: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// Name of the model.
    pub model: String,
    /// Description of the device.
    pub device: String,
    /// Description of the method.
    pub method: String,
    /// Number of trainable parameters of the method.
    pub trainable: usize,
    /// Number of measured forward passes of each model and size.
    pub steps: usize,
    /// Latencies by size.
    pub rows: Vec<LatencyRow>,
}

impl fmt::Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model      {}\ndevice     {}", self.model, self.device)?;
        writeln!(
            f,
            "method     {}, {} trainable parameters",
            self.method, self.trainable
        )?;
        write!(
            f,
            "\n{:>6} {:>6}  {:>10}  {:>19}  {:>19}",
            "batch", "length", "base", "LoRA merged", "method"
        )?;
        for row in &self.rows {
            write!(
                f,
                "\n{:>6} {:>6}  {:>7.1} ms  {:>7.1} ms {:>+7.1} %  {:>7.1} ms {:>+7.1} %",
                row.batch_size,
                row.max_length,
                row.base_ms,
                row.merged_ms,
                row.merged_percent,
                row.method_ms,
                row.method_percent
            )?;
        }
        Ok(())
    }
}

/// Times a forward pass of the base, of LoRA merged into it, and of the method of the options, for each size.
///
/// # Errors
/// If a size exceeds the model's, the method trains all weights, or the device fails.
pub fn bench_latency(options: &InferenceOptions) -> Result<LatencyReport, TrainError> {
    let shape = &options.shape;
    refuse_frozen(shape)?;
    let own = match (shape.batch_size, shape.max_length) {
        (None, None) => None,
        (batch, length) => Some(BatchSize {
            batch: at_least_one("batch_size", batch.unwrap_or(1))?,
            length: at_least_one("max_length", length.unwrap_or(128))?,
        }),
    };
    let sizes = match (own, options.sizes.as_slice()) {
        (Some(own), _) => vec![own],
        (None, []) => BatchSize::PAPER.to_vec(),
        (None, sizes) => sizes.to_vec(),
    };
    latencies(shape, &sizes, options.steps.unwrap_or(8))
}

/// Times a forward pass of three models in turn for each size: the base, LoRA merged into it, and the method of a shape. A language
/// model computes the logits of the last token, an encoder those of its head.
///
/// # Errors
/// If a size exceeds the model's, the method trains all weights, or the device fails.
fn latencies(
    shape: &Shape,
    sizes: &[BatchSize],
    steps: usize,
) -> Result<LatencyReport, TrainError> {
    let steps = at_least_one("steps", steps)?;
    let method = shape.trained()?;
    let device = device::open(shape.device.unwrap_or(DeviceName::Auto))?;
    let (name, config) = shape.model()?;
    let most = config.sizes().max_length;
    for size in sizes {
        if size.length > most {
            let message = format!(
                "has {} tokens, and the model takes {most} at most; give others, such as --sizes 4x{}",
                size.length,
                most.min(128)
            );
            return Err(TrainError::config("sizes", message));
        }
        BatchLimit::new(config.sizes(), &device).check("sizes", [size.batch, size.length])?;
    }
    let mut rows = Vec::new();
    let trainable = dispatch!(&config,
        causal M(config) => {
            let (models, trainable) = models::<M>(config, shape, &device)?;
            for &size in sizes {
                let found = forwarded(&models, [size.batch, size.length], steps, &device)?;
                rows.push(row(size, &found));
            }
            trainable
        },
        encoder M(config) => {
            let (models, trainable) = models::<M>(config, shape, &device)?;
            for &size in sizes {
                let found = read(&models, [size.batch, size.length], steps, &device)?;
                rows.push(row(size, &found));
            }
            trainable
        },
    );
    Ok(LatencyReport {
        bench: "latency",
        version: env!("CARGO_PKG_VERSION"),
        model: name,
        device: crate::device::describe(&device),
        method: shape.describe(&method),
        trainable,
        steps,
        rows,
    })
}

fn row(size: BatchSize, timings: &[Timing; 3]) -> LatencyRow {
    let [base, merged, method] = [0, 1, 2].map(|index| 1e3 * timings[index].median());
    let over = |ms: f64| 100.0 * (ms / base - 1.0);
    LatencyRow {
        batch_size: size.batch,
        max_length: size.length,
        base_ms: base,
        merged_ms: merged,
        method_ms: method,
        merged_percent: over(merged),
        method_percent: over(method),
    }
}

/// Creates the base, the base with LoRA merged, and the base with the method, and counts the latter's trainable parameters.
fn models<M: Pretrained>(
    config: &M::Config,
    shape: &Shape,
    device: &Device,
) -> Result<([M; 3], usize), TrainError> {
    let base = M::init_random(config, &M::Options::default(), 0, device)?;
    let lora = Shape {
        method: Some(Method::default()),
        virtual_tokens: None,
        adapter_size: None,
        adapter_drop: None,
        ..shape.clone()
    };
    let merged = merge(adapted(base.clone(), &lora)?).into_module();
    let method = adapted(base.clone(), shape)?;
    let trainable = trainable_summary(&method).trainable;
    Ok(([base, merged, method], trainable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_batch_and_a_length() {
        let size = BatchSize {
            batch: 4,
            length: 64,
        };
        assert_eq!("4x64".parse(), Ok(size));
        for bad in ["4", "4x", "0x3", "x", "4*64"] {
            let message = bad.parse::<BatchSize>().unwrap_err();
            assert!(message.contains("32x512"), "{message}");
        }
    }

    #[test]
    fn the_share_over_the_base_is_in_per_cent() {
        let timings = [2.0, 2.0, 2.5].map(|seconds| Timing::new(vec![seconds]));
        let found = row(BatchSize::PAPER[0], &timings);
        assert_eq!((found.base_ms, found.method_ms), (2000.0, 2500.0));
        assert_eq!((found.merged_percent, found.method_percent), (0.0, 25.0));
    }
}
