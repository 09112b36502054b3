//! Description of an adapter, a model or a file of weights, without loading it.
//!
//! | file | contents |
//! | --- | --- |
//! | `report` | the report as structs and as JSON |
//! | `adapter`, `config`, `names`, `module` | an adapter: configuration, tensors, and mismatches between them |
//! | `model` | a model, a file of weights |
//! | `values` | norms, and values that are not finite |
//! | `text` | the report as text |
//!
//! The report also covers files that do not load: a defect is part of the report, and only an unreadable file is an error.

mod adapter;
mod config;
mod model;
mod module;
mod names;
mod report;
mod text;
mod values;

pub(crate) use config::settings;
pub use report::{
    AdapterReport, DtypeReport, Findings, ModelReport, ModuleReport, Report, TensorReport, Unusual,
    WeightsReport,
};

use crate::TrainError;
use crate::jobs::sources::model_directory;
use clap::Args;
use lora_core::file::{CONFIG_FILE, PICKLED_FILE, WEIGHTS_FILE};
use lora_models::checkpoint::Checkpoint;
use lora_models::encoder::Labels;
use lora_models::formats::{AdapterFormat, mlx};
use std::path::{Path, PathBuf};

/// Maximum number of directories that are searched for adapters.
const MAX_BELOW: usize = 1024;

/// Options of `lora inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectOptions {
    /// Adapter (a directory of PEFT or mlx-lm, or a loralib file), directory or name of a model, or file of weights.
    pub path: PathBuf,
    /// Alpha of a loralib adapter, which its file does not contain.
    #[arg(long, value_name = "X")]
    pub alpha: Option<f64>,
    /// Also read the values of a model, to report norms and non-finite values. This takes as long as reading its files, and memory for the largest tensor in f32. The values of adapters are always read.
    #[arg(long)]
    pub values: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Describes a path.
///
/// # Errors
/// If the path does not exist or cannot be read.
pub fn inspect(options: &InspectOptions) -> Result<Report, TrainError> {
    let path = options.path.as_path();
    if options.alpha.is_some_and(|alpha| !alpha.is_finite()) {
        return Err(TrainError::config("alpha", "is not a finite number"));
    }
    if path.is_file() {
        return file(path, options);
    }
    if path.is_dir() {
        if let Some(format) = adapter::format_of_dir(path) {
            return adapter::describe(path, format, options.alpha);
        }
        let adapters = below(path)?;
        if !adapters.is_empty() && !path.join("config.json").exists() {
            let path = path.display().to_string();
            return Ok(Report::Adapters { path, adapters });
        }
    }
    let report = model::describe(&model_directory(path)?, options.values)?;
    Ok(Report::Model(Box::new(report)))
}

/// Describes a single file of weights, or the adapter that it is a part of.
fn file(path: &Path, options: &InspectOptions) -> Result<Report, TrainError> {
    let parts = [CONFIG_FILE, WEIGHTS_FILE, mlx::WEIGHTS_FILE, PICKLED_FILE];
    let is_part = parts.iter().any(|part| path.ends_with(part));
    if let (Some(dir), true) = (path.parent(), is_part)
        && let Some(format) = adapter::format_of_dir(dir)
        && dir.join(CONFIG_FILE).exists()
    {
        return adapter::describe(dir, format, options.alpha);
    }
    let checkpoint = Checkpoint::open(path)?;
    let format = adapter::format_of_names(&checkpoint);
    if format == Some(AdapterFormat::Loralib) {
        return adapter::describe(path, AdapterFormat::Loralib, options.alpha);
    }
    let mut unusual = Findings::default();
    if format.is_some() {
        let message = format!("it belongs to an adapter, whose {CONFIG_FILE} is missing");
        unusual.add("config", message);
    }
    let report = model::weights(&checkpoint, options.values, unusual);
    Ok(Report::Weights(report))
}

/// Returns the names of the directories in a directory that hold adapters, sorted.
fn below(dir: &Path) -> Result<Vec<String>, TrainError> {
    let mut names = Vec::new();
    let entries = std::fs::read_dir(dir).map_err(TrainError::io(dir))?;
    for entry in entries.take(MAX_BELOW) {
        let entry = entry.map_err(TrainError::io(dir))?;
        if entry.path().join(CONFIG_FILE).is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn label_names(labels: &Labels) -> Vec<String> {
    match labels {
        Labels::Score => vec!["score".into()],
        labels => labels.names().to_vec(),
    }
}
