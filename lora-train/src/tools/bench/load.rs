//! Reading a checkpoint.

use super::BenchReport;
use super::measure::repeated;
use super::workload::Shape;
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::host;
use crate::jobs::open::{Opens, model_directory};
use crate::jobs::ranges::at_least_one;
use burn::tensor::Device;
use clap::Args;
use lora_core::files::Overwrite;
use lora_models::classifier::{Classifier, HeadKind};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{ExportOptions, LoraModel, ModelConfig, Preset};
use std::path::{Path, PathBuf};

/// Options of `lora bench load`.
#[derive(Args, Clone, Debug, Default)]
pub struct LoadOptions {
    /// Directory of the model to read.
    #[arg(long, value_name = "DIR", conflicts_with = "preset")]
    pub model: Option<PathBuf>,
    /// Write random weights in the shape of a published model to a temporary directory, and read those [default: gpt2].
    #[arg(long, value_name = "NAME")]
    pub preset: Option<Preset>,
    /// Times to read it, after two that are not counted [default: 5].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Device to put it on [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
}

/// Times reading a checkpoint from files that the system has in its cache, onto the device, ready to run.
///
/// # Errors
/// Where the model cannot be read, or written first.
pub fn bench_load(options: &LoadOptions) -> Result<BenchReport, TrainError> {
    let steps = at_least_one("steps", options.steps.unwrap_or(5))?;
    let device = device::open(options.device.unwrap_or(DeviceName::Auto))?;
    let mut written = None;
    let (name, dir) = match &options.model {
        Some(model) => (model.display().to_string(), model_directory(model)?),
        None => {
            let preset = options.preset.unwrap_or(Preset::Gpt2);
            let parent = tempfile::tempdir().map_err(TrainError::io(&std::env::temp_dir()))?;
            let dir = parent.path().join("model");
            let shape = Shape {
                preset: Some(preset),
                ..Shape::default()
            };
            write(&shape, &dir, &device)?;
            written = Some(parent);
            (preset.to_string(), dir)
        }
    };
    let mut parameters = 0;
    let timing = repeated(steps, |_| {
        parameters = match ModelConfig::from_dir(&dir)? {
            ModelConfig::Gpt2(_) => opened::<Gpt2LmHead>(&dir, &device)?,
            ModelConfig::Encoder(_) => opened::<Classifier>(&dir, &device)?,
        };
        Ok(())
    })?;
    drop(written);
    Ok(
        BenchReport::new("load", name, "read".into(), &device, &timing, 0)
            .with("parameters", parameters as f64)
            .with("steps", steps as f64),
    )
}

fn opened<M: Opens>(dir: &Path, device: &Device) -> Result<usize, TrainError> {
    let (model, _) = M::open(dir, &M::How::default(), device)?;
    host::wait(device)?;
    Ok(model.num_params())
}

fn write(shape: &Shape, dir: &Path, device: &Device) -> Result<(), TrainError> {
    let options = ExportOptions::default();
    match shape.model()?.1 {
        ModelConfig::Gpt2(config) => {
            Gpt2LmHead::init(&config, 0, device)?.export(dir, &options, Overwrite::Refuse)?
        }
        ModelConfig::Encoder(config) => Classifier::init(&config, HeadKind::Sequence, 0, device)?
            .export(dir, &options, Overwrite::Refuse)?,
    };
    Ok(())
}
