//! Differences between two adapters, or between the weights of two models.
//!
//! | file | contents |
//! | --- | --- |
//! | `report` | the report as structs and as JSON |
//! | `adapters`, `weights` | the comparison of adapters, and of weights |
//! | `values` | the distance of two tensors |
//! | `text` | the report as text |

mod adapters;
mod report;
mod text;
mod values;
mod weights;

pub use report::{DiffKind, DiffReport, FieldDifference, ModuleDifference, TensorDifference};

use crate::TrainError;
use crate::jobs::foreign::{ForeignOptions, FormatName, read_adapter};
use crate::jobs::sources::model_directory;
use clap::Args;
use lora_core::file::PeftOptions;
use lora_models::checkpoint::Checkpoint;
use lora_models::formats::AdapterFormat;
use std::path::{Path, PathBuf};

/// Options of `lora diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffOptions {
    /// Adapter of any format, model, or file of weights.
    pub first: PathBuf,
    /// Adapter or weights to compare with; the formats may differ.
    pub second: PathBuf,
    /// Values that the file of another program lacks.
    #[command(flatten)]
    pub foreign: ForeignOptions,
    /// Largest difference, relative to the norm of the first, that counts as the same.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub tolerance: f64,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Compares two paths.
///
/// # Errors
/// If an option is invalid, a file cannot be read, or only one path is an adapter.
pub fn diff(options: &DiffOptions) -> Result<DiffReport, TrainError> {
    if !(options.tolerance >= 0.0 && options.tolerance.is_finite()) {
        let message = format!("is {}, expected a number of at least 0", options.tolerance);
        return Err(TrainError::config("tolerance", message));
    }
    let paths = [&options.first, &options.second];
    let formats = paths.map(|path| AdapterFormat::detect(path));
    let mut report = match formats {
        [Some(first), Some(second)] => {
            let formats = [first, second].map(FormatName::from);
            options.foreign.check(&formats)?;
            let adapter = |at: usize| {
                let peft = PeftOptions::default();
                read_adapter(paths[at], formats[at], &options.foreign, peft)
            };
            let (first, second) = (adapter(0)?, adapter(1)?);
            adapters::compare(&first, &second, options.tolerance)
        }
        [None, None] => {
            let [first, second] = [weights(paths[0])?, weights(paths[1])?];
            weights::compare(&first, &second, options.tolerance)?
        }
        [Some(_), None] | [None, Some(_)] => {
            let message = "one is an adapter and the other is not; give two of a kind";
            return Err(TrainError::config("second", message));
        }
    };
    report.paths = paths.map(|path| path.display().to_string());
    report.same = report.is_same();
    Ok(report)
}

impl DiffReport {
    fn is_same(&self) -> bool {
        self.config.is_empty()
            && self.modules_only_in.iter().all(Vec::is_empty)
            && self.tensors_only_in.iter().all(Vec::is_empty)
            && self.modules.iter().all(|module| module.same)
            && self.tensors.iter().all(|tensor| tensor.same)
    }
}

fn weights(path: &Path) -> Result<Checkpoint, TrainError> {
    if path.is_file() {
        Ok(Checkpoint::open(path)?)
    } else {
        Ok(Checkpoint::open(model_directory(path)?)?)
    }
}
