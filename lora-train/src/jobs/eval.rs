//! Evaluating a model, with or without an adapter.

use super::evaluation::{EvalOptions, EvalSummary};
use super::open::model_directory;
use super::plan::default_task;
use super::{causal, labelled};
use crate::TrainError;
use crate::progress::Screen;
use crate::task::TaskName;

/// Evaluates.
///
/// # Errors
/// On bad data or files, or a predictions file that is there already.
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
    match options
        .task
        .map_or_else(|| default_task(&options.model, adapters.first()), Ok)?
    {
        TaskName::CausalLm => {
            options.reading.check(TaskName::CausalLm)?;
            causal::eval(options, screen)
        }
        task => labelled::eval(task, options, screen),
    }
}
