//! Evaluation of a model, with or without adapters.

use super::evaluation::{EvalOptions, EvalSummary};
use super::sources::Sources;
use super::{causal, labelled};
use crate::TrainError;
use crate::progress::Screen;
use crate::task::TaskName;
use lora_core::files::{Overwrite, check_file};
use lora_models::dispatch;

/// Evaluates a model on a data file.
///
/// # Errors
/// If data or files are malformed, or the predictions file exists.
pub fn eval(options: &EvalOptions, screen: &Screen) -> Result<EvalSummary, TrainError> {
    if let Some(path) = &options.predictions {
        if path.exists() && !options.overwrite {
            return Err(TrainError::OutputExists { path: path.clone() });
        }
        check_file(path, Overwrite::Replace)?;
    }
    let sources = &Sources::open_for(&options.model, options.adapters.selection()?, options.task)?;
    let task = match options.task {
        Some(task) => task,
        None => sources.task()?,
    };
    options.reading.check(task)?;
    let given = [
        ("labels", options.labels.is_some()),
        ("threshold", options.threshold.is_some()),
    ];
    if let Some((option, _)) = given
        .iter()
        .find(|(_, given)| *given && task == TaskName::CausalLm)
    {
        let message = format!("has no meaning for the task {task}; leave it out");
        return Err(TrainError::config(*option, message));
    }
    if task != TaskName::CausalLm {
        return labelled::eval(task, options, sources, screen);
    }
    dispatch!(sources.model.config(),
        causal M(config) => causal::eval::<M>(options, sources, config, screen),
        encoder M(_) => Err(causal::no_language_model(sources)),
    )
}
