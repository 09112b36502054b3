//! Combination of several adapters into one.

use crate::TrainError;
use crate::jobs::beside::refuse_beside;
use crate::jobs::inputs::Inputs;
use crate::progress::Screen;
use clap::Args;
use lora_core::combine::{CombineOn, CombineOptions, MajoritySign, Mix, combine as combined};
use lora_core::file::StoredAdapter;
use lora_core::files::{Overwrite, check_dir};
use std::path::PathBuf;

/// Options of `lora combine`.
#[derive(Args, Clone, Debug)]
pub struct CombineArgs {
    /// Directories of PEFT adapters on one base model.
    #[arg(required = true, value_name = "DIR")]
    pub adapters: Vec<PathBuf>,
    /// Weight of each adapter, in the order given [default: 1 for all].
    #[arg(
        long,
        value_name = "X,X",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    pub weights: Vec<f64>,
    /// Method, by PEFT's name: `cat` is the exact sum, and the ranks add up; `linear`, `ties`, `dare_linear`, `dare_ties` and `magnitude_prune` mix the factors; `svd`, or one of the last four followed by `_svd`, mixes the updates and approximates the result with --rank.
    #[arg(long, value_name = "NAME", default_value = "cat")]
    pub method: String,
    /// Rank of the result of `svd` methods [default: the largest of the adapters].
    #[arg(long, value_name = "N")]
    pub rank: Option<usize>,
    /// Share of values that pruning methods keep.
    #[arg(long, value_name = "X")]
    pub density: Option<f64>,
    /// For `ties` methods, elect the majority sign by the number of values instead of their sum.
    #[arg(long)]
    pub by_frequency: bool,
    /// Number of the adapter, counted from 1, whose head is kept if several adapters have one.
    #[arg(long, value_name = "N")]
    pub head_from: Option<usize>,
    /// Seed of `dare` methods.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// Fail, instead of warning, if the adapters were trained on different base models.
    #[arg(long)]
    pub strict_base: bool,
    /// Directory to write.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace the output directory if it exists.
    #[arg(long)]
    pub overwrite: bool,
}

impl CombineArgs {
    fn options(&self) -> Result<CombineOptions, TrainError> {
        let name = self.method.replace('-', "_");
        let (kind, on_update) = match name.strip_suffix("svd") {
            Some(kind) => (kind.trim_end_matches('_'), true),
            None => (name.as_str(), false),
        };
        let refuse = |option: &str, message: String| Err(TrainError::config(option, message));
        let missing = || format!("is missing: `{name}` prunes; give the share to keep");
        let density = || {
            self.density
                .ok_or_else(|| TrainError::config("density", missing()))
        };
        let majority = if self.by_frequency {
            MajoritySign::Frequency
        } else {
            MajoritySign::Total
        };
        let mix = match kind {
            "" | "cat" | "linear" => Mix::Linear,
            "ties" => Mix::Ties {
                density: density()?,
                majority,
            },
            "dare_linear" => Mix::DareLinear {
                density: density()?,
            },
            "dare_ties" => Mix::DareTies {
                density: density()?,
                majority,
            },
            "magnitude_prune" => Mix::MagnitudePrune {
                density: density()?,
            },
            _ => {
                let message = format!(
                    "is {}, expected cat, linear, svd, ties, dare_linear, dare_ties or magnitude_prune, or one of the \
                     last four followed by _svd",
                    self.method
                );
                return refuse("method", message);
            }
        };
        if mix == Mix::Linear && self.density.is_some() {
            return refuse("density", format!("does not apply to `{name}`"));
        }
        if self.rank.is_some() && !on_update {
            let message = format!("does not apply to `{name}`: only svd methods choose a rank");
            return refuse("rank", message);
        }
        let adapters = self.adapters.len();
        if let Some(number) = self.head_from
            && !(1..=adapters).contains(&number)
        {
            return refuse(
                "head_from",
                format!("is {number}, expected 1 to {adapters}"),
            );
        }
        Ok(CombineOptions {
            on: match (on_update, kind) {
                (true, _) => CombineOn::Update { rank: self.rank },
                (false, "cat") => CombineOn::Concatenation,
                (false, _) => CombineOn::Factors,
            },
            mix,
            saved_from: self.head_from.map(|number| number - 1),
            seed: self.seed,
            strict_base: self.strict_base,
        })
    }
}

/// Combines adapters, and returns a summary of the written adapter.
///
/// # Errors
/// If an option or file is invalid, the adapters cannot be combined, or the output exists.
pub fn combine(args: &CombineArgs) -> Result<String, TrainError> {
    let options = args.options()?;
    let count = args.adapters.len();
    let mut weights = args.weights.clone();
    if weights.is_empty() {
        weights = vec![1.0; count];
    }
    if weights.len() != count {
        let given = weights.len();
        let message = format!("has {given} values, expected one for each of the {count} adapters");
        return Err(TrainError::config("weights", message));
    }
    let overwrite = Overwrite::from(args.overwrite);
    let read = args.adapters.iter().map(PathBuf::as_path);
    Inputs::of(read).refuse("output", &args.output)?;
    check_dir(&args.output, overwrite)?;
    let read = |dir: &PathBuf| {
        refuse_beside(dir)?;
        Ok(StoredAdapter::read(dir)?)
    };
    let adapters = args.adapters.iter().map(read);
    let adapters = adapters.collect::<Result<Vec<_>, TrainError>>()?;
    let weighted: Vec<(&StoredAdapter, f64)> = adapters.iter().zip(weights).collect();
    let result = combined(&weighted, &options)?;
    if let Some(difference) = &result.base_difference {
        let text = format!("warning: the adapters have different bases: one was {difference}");
        Screen::detect().line(&text);
    }
    result.adapter.save(&args.output, overwrite)?;
    let mut text = format!(
        "combined {} adapters by {}: {} modules, {} parameters, to {}",
        adapters.len(),
        args.method,
        result.adapter.modules.len(),
        result.adapter.parameters(),
        args.output.display()
    );
    if !result.adapter.saved.is_empty() {
        let names: Vec<&str> = result.adapter.saved.keys().map(String::as_str).collect();
        text.push_str(&format!(
            "\nkept whole, whatever the weights, since they replace values of the base: {}",
            names.join(", ")
        ));
    }
    let worst = result.truncation.iter().max_by(|a, b| a.1.total_cmp(b.1));
    if let Some((module, lost)) = worst {
        text.push_str(&format!(
            "\nlargest truncation error of an update: {:.2} % of its norm, in {module}",
            100.0 * lost
        ));
    }
    Ok(text)
}
