//! Estimate of a training run: memory by purpose, and time.
//!
//! | file | contents |
//! | --- | --- |
//! | `weights` | counts: weights, gradients, optimizer state, adapter file |
//! | `calibrate` | measurements: peak memory and time of a few steps of the model with a few of its layers |
//! | `forecast` | extrapolation from both |
//!
//! Memory and time of a step grow linearly with layers and examples: four short runs, with two numbers of layers and two
//! of examples, determine both.

mod calibrate;
mod forecast;
mod weights;

pub use forecast::Forecast;

use super::bench::{Shape, Training};
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::jobs::ranges::at_least_one;
use crate::memory::available_mib;
use calibrate::calibrate;
use clap::Args;
use weights::Counts;

/// Options of `lora plan`.
#[derive(Args, Clone, Debug, Default)]
pub struct PlanOptions {
    /// Model: a directory with config.json is enough.
    #[command(flatten)]
    pub shape: Shape,
    /// Training.
    #[command(flatten)]
    pub training: Training,
    /// Available memory in MiB, for the largest batch [default: the free memory].
    #[arg(long, value_name = "MIB")]
    pub memory: Option<usize>,
    /// Number of examples in an epoch, for its duration.
    #[arg(long, value_name = "N")]
    pub examples: Option<usize>,
    /// Number of ranks, for the bytes that each sends in a step.
    #[arg(long, value_name = "N")]
    pub ranks: Option<usize>,
    /// Count only, without running steps.
    #[arg(long)]
    pub no_calibration: bool,
    /// Print the outcome as one JSON object on the last line.
    #[arg(long)]
    pub json: bool,
}

/// Estimates a run, by counting and by measuring a few steps.
///
/// # Errors
/// If the shape exceeds the model's, the targets match no module, or the device fails.
pub fn estimate(options: &PlanOptions) -> Result<Forecast, TrainError> {
    let (shape, training) = (&options.shape, options.training);
    let (name, config) = shape.model()?;
    let [batch_size, max_length] = shape.size(8, &config)?;
    if let Some(examples) = options.examples {
        at_least_one("examples", examples)?;
    }
    let mut forecast = Forecast {
        model: name,
        method: shape.describe_with(training),
        batch_size,
        max_length,
        available_mib: options.memory.map(|mib| mib as f64).or_else(available_mib),
        ..Forecast::default()
    };
    forecast.add_counts(&Counts::new(&config, shape, training)?);
    if let Some(ranks) = options.ranks {
        forecast.add_ranks(at_least_one("ranks", ranks)?);
    }
    let calibration = if options.no_calibration {
        Err("disabled by an option".to_string())
    } else {
        let device = device::open(shape.device.unwrap_or(DeviceName::Auto))?.autodiff();
        calibrate(&config, shape, training, [batch_size, max_length], &device)?
    };
    match calibration {
        Ok(found) => forecast.add_calibration(&found, options.examples),
        Err(reason) => forecast.not_calibrated = Some(reason),
    }
    Ok(forecast)
}
