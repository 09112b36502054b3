//! Analysis of updates as in section 7 of Hu et al. 2021: subspaces that two adapters share, and updates against the weights of the
//! base.
//!
//! | file | contents |
//! | --- | --- |
//! | `matrices` | matrices with an update: parts of fused projections by themselves, filters by name and layer |
//! | `measure` | numbers of a matrix |
//! | `report` | the report as structs and as JSON |
//! | `text` | the report as text |
//! | `figures` | heat maps |

mod figures;
mod matrices;
mod measure;
mod report;
mod text;

pub use report::{AnalysisReport, Between, MatrixReport, Similarity, UpdateReport, WeightOverlap};

use crate::TrainError;
use crate::device;
use crate::jobs::foreign::{ForeignOptions, FormatName, read_adapter};
use crate::jobs::inputs::Inputs;
use crate::jobs::ranges::at_least_one;
use crate::jobs::sources::Sources;
use crate::progress::Screen;
use clap::Args;
use lora_core::file::{PeftOptions, StoredAdapter};
use lora_core::files::{Overwrite, check_dir, check_file, write_file};
use lora_models::classifier::ClassifierOptions;
use lora_models::formats::AdapterFormat;
use lora_models::{LoadOptions, dispatch};
use matrices::{Filter, Updates};
use measure::{Measure, Measured};
use std::path::{Path, PathBuf};

/// Options of `lora analyze`.
#[derive(Args, Clone, Debug)]
pub struct AnalyzeOptions {
    /// Directory of the base model, or its name on the Hub.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Adapter of any format.
    #[arg(long, value_name = "PATH")]
    pub adapter: PathBuf,
    /// Adapter to compare with, such as one of another rank or seed: also report the subspaces that both share.
    #[arg(long, value_name = "PATH")]
    pub against: Option<PathBuf>,
    /// Values that the file of another program lacks.
    #[command(flatten)]
    pub foreign: ForeignOptions,
    /// Matrices to analyze, by the end of their names, such as `query` or `c_attn[q,v]` [default: all with an adapter].
    #[arg(long, value_name = "A,B")]
    pub targets: Option<String>,
    /// Layers to analyze, by index from 0 [default: all].
    #[arg(long, value_name = "N,N", value_delimiter = ',')]
    pub layers: Option<Vec<usize>>,
    /// Number of the weight's own singular directions that the update's are compared with.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub directions: usize,
    /// Seed of the random matrices that serve as a control.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// Write all numbers as a JSON object: to FILE, or instead of the table if none is given.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Write heat maps of the similarities as SVG files to this directory, which has nothing else.
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
    /// Replace the file of --json and the directory of --svg.
    #[arg(long)]
    pub overwrite: bool,
}

impl AnalyzeOptions {
    /// Returns true if standard output gets the JSON object.
    pub fn prints_json(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    /// Returns the file that gets the JSON object.
    fn json_file(&self) -> Option<&Path> {
        self.json.as_deref().filter(|_| !self.prints_json())
    }

    /// Checks the places to write before there is any work.
    fn check(&self, overwrite: Overwrite) -> Result<(), TrainError> {
        at_least_one("directions", self.directions)?;
        let read = [&self.model, &self.adapter].into_iter();
        let inputs = Inputs::of(read.chain(&self.against).map(PathBuf::as_path));
        if let Some(path) = self.json_file() {
            inputs.refuse_file("json", path)?;
            check_file(path, overwrite)?;
        }
        if let Some(path) = &self.svg {
            inputs.refuse("svg", path)?;
            check_dir(path, overwrite)?;
            figures::check(path)?;
        }
        Ok(())
    }

    fn adapter(&self, path: &Path) -> Result<StoredAdapter, TrainError> {
        let format = AdapterFormat::detect(path).map(FormatName::from);
        let format = format.ok_or_else(|| {
            let message = format!(
                "{} is no adapter of PEFT, mlx-lm or loralib",
                path.display()
            );
            TrainError::config("adapter", message)
        })?;
        let adapter = read_adapter(path, format, &self.foreign, PeftOptions::default())?;
        if adapter.needs_changed_base() {
            let message = format!(
                "{} was started from the weights ({}) and belongs to a base from which the start was subtracted, so that \
                 its factors are no update of this one; save it as an update of the original base first \
                 (PEFT's `path_initial_model_for_weight_conversion`)",
                path.display(),
                adapter.config.init
            );
            return Err(TrainError::config("adapter", message));
        }
        Ok(adapter)
    }
}

/// Analyzes the updates of an adapter, and writes the files that the options name.
///
/// # Errors
/// If an option or file is invalid, the adapter does not fit the model, or an output exists.
pub fn analyze(options: &AnalyzeOptions, screen: &Screen) -> Result<AnalysisReport, TrainError> {
    let overwrite = Overwrite::from(options.overwrite);
    options.check(overwrite)?;
    let paths: Vec<&Path> = std::iter::once(&options.adapter)
        .chain(&options.against)
        .map(PathBuf::as_path)
        .collect();
    let formats = paths.iter().filter_map(|path| AdapterFormat::detect(path));
    let formats: Vec<FormatName> = formats.map(FormatName::from).collect();
    options.foreign.check(&formats)?;
    let adapters = paths.iter().map(|path| options.adapter(path));
    let adapters = adapters.collect::<Result<Vec<_>, _>>()?;
    let filter = Filter::new(options.targets.as_deref(), options.layers.as_deref());
    let sources = Sources::open(&options.model, &[])?;
    // Everything is computed in f64 on the host.
    let device = match device::host() {
        Some(host) => host,
        None => device::open(device::DeviceName::Auto)?,
    };
    let measure = Measure {
        directions: options.directions,
        seed: options.seed,
    };
    let updates = Updates {
        adapters: &adapters,
        filter: &filter,
    };
    let Measured { matrices, skipped } = dispatch!(sources.model.config(),
        causal M(config) => {
            let load = LoadOptions::default();
            measure.all::<M>(&sources, config, &load, &updates, &device, screen)
        },
        encoder M(config) => {
            let load = ClassifierOptions::default();
            measure.all::<M>(&sources, config, &load, &updates, &device, screen)
        },
    )?;
    let report = AnalysisReport {
        model: options.model.display().to_string(),
        adapters: paths
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        seed: options.seed,
        matrices,
        skipped,
    };
    if let Some(path) = &options.svg {
        let count = figures::write(&report, path, overwrite)?;
        screen.line(&format!("wrote {count} figures to {}", path.display()));
    }
    if let Some(path) = options.json_file() {
        let text = serde_json::to_string(&report)
            .map_err(|error| TrainError::config("json", error.to_string()))?;
        write_file(path, overwrite, |file| writeln!(file, "{text}"))?;
        screen.line(&format!("wrote {}", path.display()));
    }
    Ok(report)
}
