//! Evaluation of a model, with or without adapters.

use super::evaluation::{EvalOptions, EvalSummary};
use super::open::model_directory;
use super::plan::default_task;
use super::{causal, labelled};
use crate::TrainError;
use crate::progress::Screen;
use crate::task::TaskName;
use lora_models::{ModelConfig, dispatch};

/// Evaluates a model on a data file.
///
/// # Errors
/// If data or files are malformed, or the predictions file exists.
pub fn eval(options: &EvalOptions, screen: &Screen) -> Result<EvalSummary, TrainError> {
    if let Some(path) = options
        .predictions
        .as_ref()
        .filter(|p| p.exists() && !options.overwrite)
    {
        return Err(TrainError::OutputExists { path: path.clone() });
    }
    let options = &EvalOptions {
        model: model_directory(&options.model)?,
        ..options.clone()
    };
    let adapters = options.adapters.selection()?;
    let task = match options.task {
        Some(task) => task,
        None => default_task(&options.model, adapters.first())?,
    };
    if task != TaskName::CausalLm {
        return labelled::eval(task, options, screen);
    }
    options.reading.check(task)?;
    dispatch!(&ModelConfig::from_dir(&options.model)?,
        causal M(_) => causal::eval::<M>(options, screen),
        encoder M(_) => Err(causal::no_language_model(&options.model)),
    )
}
