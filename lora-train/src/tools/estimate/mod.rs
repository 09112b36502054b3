//! What a training run will take, before it runs: memory, by what it is for, and time.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `weights` | what can be counted: weights, gradients, the optimizer's state, the adapter's file |
//! | `calibrate` | what is measured: peak and seconds of a few steps of the model with a few of its layers |
//! | `forecast` | both together, and what follows from them |
//!
//! A step's memory and time grow linearly with the layers, and with the examples; four short runs, of few and of more layers, each with
//! few and with more examples, say all there is to say of both.

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
    /// The model: a directory with config.json is enough.
    #[command(flatten)]
    pub shape: Shape,
    /// What trains.
    #[command(flatten)]
    pub training: Training,
    /// Memory that may be used, in MiB, for the largest batch [default: what the system says is free].
    #[arg(long, value_name = "MIB")]
    pub memory: Option<usize>,
    /// Examples in an epoch, to tell how long one takes.
    #[arg(long, value_name = "N")]
    pub examples: Option<usize>,
    /// Count only, and run nothing.
    #[arg(long)]
    pub no_calibration: bool,
    /// Print the outcome as one JSON object on the last line.
    #[arg(long)]
    pub json: bool,
}

/// Counts what a run needs, and measures what cannot be counted.
///
/// # Errors
/// For a shape that the model does not take, targets that it does not have, and where the device fails.
pub fn estimate(options: &PlanOptions) -> Result<Forecast, TrainError> {
    let PlanOptions {
        shape, training, ..
    } = options;
    let (name, config) = shape.model()?;
    let size = shape.size(8, &config)?;
    if let Some(examples) = options.examples {
        at_least_one("examples", examples)?;
    }
    let counts = Counts::of(&config, shape, *training)?;
    let available = options.memory.map(|mib| mib as f64).or_else(available_mib);
    let calibration = match options.no_calibration {
        true => Err("not asked for".to_string()),
        false => {
            let device = device::open(shape.device.unwrap_or(DeviceName::Auto))?.autodiff();
            calibrate(&config, shape, *training, size, &device)?
        }
    };
    Ok(Forecast::new(
        name,
        shape.method(*training),
        size,
        counts,
        calibration,
        available,
        options.examples,
    ))
}
