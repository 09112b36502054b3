//! Loading of a checkpoint.

use super::BenchReport;
use super::measure::repeated;
use super::workload::Shape;
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::host;
use crate::jobs::ranges::at_least_one;
use crate::jobs::sources::model_directory;
use burn::tensor::Device;
use clap::Args;
use lora_core::files::Overwrite;
use lora_core::trainable_summary;
use lora_models::{ExportOptions, ModelConfig, Preset, Pretrained, dispatch};
use std::path::{Path, PathBuf};

/// Options of `lora bench load`.
#[derive(Args, Clone, Debug, Default)]
pub struct LoadOptions {
    /// Directory of the model to load.
    #[arg(long, value_name = "DIR", conflicts_with = "preset")]
    pub model: Option<PathBuf>,
    /// Write random weights in the shape of a published model to a temporary directory, and load these [default: gpt2].
    #[arg(long, value_name = "NAME")]
    pub preset: Option<Preset>,
    /// Number of measured loads, after two that are not measured [default: 5].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Device of the model [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
}

/// Times loading a checkpoint onto the device, from files in the system's cache.
///
/// # Errors
/// If the model cannot be read, or random weights cannot be written.
pub fn bench_load(options: &LoadOptions) -> Result<BenchReport, TrainError> {
    let steps = at_least_one("steps", options.steps.unwrap_or(5))?;
    let device = device::open(options.device.unwrap_or(DeviceName::Auto))?;
    let parent = tempfile::tempdir().map_err(TrainError::io(&std::env::temp_dir()))?;
    let (name, dir) = match &options.model {
        Some(model) => (model.display().to_string(), model_directory(model)?),
        None => {
            let preset = options.preset.unwrap_or_default();
            let dir = parent.path().join("model");
            let shape = Shape {
                preset: Some(preset),
                ..Shape::default()
            };
            write(&shape, &dir, &device)?;
            (preset.to_string(), dir)
        }
    };
    let mut parameters = 0;
    let timing = repeated(steps, |_| {
        parameters = dispatch!(ModelConfig::from_dir(&dir)?, M(config) => {
            load::<M>(config, &dir, &device)?
        });
        Ok(())
    })?;
    Ok(
        BenchReport::new("load", name, "read".into(), &device, &timing, 0)
            .with("parameters", parameters as f64)
            .with("steps", steps as f64),
    )
}

/// Loads a model and counts its parameters.
fn load<M: Pretrained>(
    config: M::Config,
    dir: &Path,
    device: &Device,
) -> Result<usize, TrainError> {
    let (model, _) = M::load_weights(config, dir, &M::Options::default(), device)?;
    host::wait(device)?;
    Ok(trainable_summary(&model).total())
}

/// Writes a model with random weights.
fn write(shape: &Shape, dir: &Path, device: &Device) -> Result<(), TrainError> {
    let (_, config) = shape.model()?;
    dispatch!(&config, M(config) => {
        let model = M::init_random(config, &<M as Pretrained>::Options::default(), 0, device)?;
        model.export(dir, &ExportOptions::default(), Overwrite::Refuse)?
    });
    Ok(())
}
