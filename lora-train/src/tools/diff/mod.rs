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

use super::convert::{FormatName, Unsaid, parse_rename, read_adapter};
use crate::TrainError;
use crate::jobs::sources::model_directory;
use clap::Args;
use lora_core::file::PeftOptions;
use lora_core::file::StoredAdapter;
use lora_models::checkpoint::Checkpoint;
use lora_models::formats::AdapterFormat;
use std::path::{Path, PathBuf};

/// Options of `lora diff`.
#[derive(Args, Clone, Debug)]
pub struct DiffOptions {
    /// An adapter of any format, a model or a file of weights.
    pub first: PathBuf,
    /// Another of the same kind; the formats may differ.
    pub second: PathBuf,
    /// Alpha that a loralib adapter was trained with: its file does not say.
    #[arg(long, value_name = "X")]
    pub alpha: Option<f64>,
    /// The parts of q, k and v that loralib's `MergedLinear` layers have enabled, such as `q,v`.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub slices: Vec<String>,
    /// Another beginning of names in loralib's and mlx-lm's files, such as `model.=transformer.`.
    #[arg(long, value_name = "FROM=TO", value_parser = parse_rename)]
    pub rename: Vec<(String, String)>,
    /// Values that differ by no more than this, relative to the norm of the first, count as the same.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    pub tolerance: f64,
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Compares two paths.
///
/// # Errors
/// On bad options, files that cannot be read, and an adapter against weights.
pub fn diff(options: &DiffOptions) -> Result<DiffReport, TrainError> {
    if !(options.tolerance >= 0.0 && options.tolerance.is_finite()) {
        let message = format!("is {}, expected a number from 0", options.tolerance);
        return Err(TrainError::config("tolerance", message));
    }
    let paths = [&options.first, &options.second];
    let formats = paths.map(|path| AdapterFormat::detect(path));
    let mut report = match formats {
        [Some(first), Some(second)] => {
            let loralib = formats.contains(&Some(AdapterFormat::Loralib));
            if !loralib && (options.alpha.is_some() || !options.slices.is_empty()) {
                let message = "is for loralib's files: the others say it themselves";
                return Err(TrainError::config("alpha", message));
            }
            let first = adapter(paths[0], first, options)?;
            let second = adapter(paths[1], second, options)?;
            adapters::compare(&first, &second, options.tolerance)
        }
        [None, None] => {
            let [first, second] = [weights(paths[0])?, weights(paths[1])?];
            weights::compare(&first, &second, options.tolerance)?
        }
        [Some(_), None] | [None, Some(_)] => {
            let message = "one is an adapter and the other is none; give two of a kind";
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

fn adapter(
    path: &Path,
    format: AdapterFormat,
    options: &DiffOptions,
) -> Result<StoredAdapter, TrainError> {
    let unsaid = Unsaid {
        alpha: options.alpha,
        slices: &options.slices,
        rename: &options.rename,
        peft: PeftOptions::default(),
    };
    read_adapter(path, FormatName::from(format), unsaid)
}

fn weights(path: &Path) -> Result<Checkpoint, TrainError> {
    if path.is_file() {
        Ok(Checkpoint::open(path)?)
    } else {
        Ok(Checkpoint::open(model_directory(path)?)?)
    }
}
