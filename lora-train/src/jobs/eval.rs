//! Evaluation of a model, with or without adapters.

use super::evaluation::{EvalOptions, EvalSummary};
use super::inputs::Inputs;
use super::sources::Sources;
use super::{causal, labelled};
use crate::TrainError;
use crate::progress::Screen;
use crate::task::TaskName;
use crate::trainer::ranks::{Alone, Ranks};
use lora_core::files::{Overwrite, check_file};
use lora_models::dispatch;

/// Evaluates a model on a data file.
///
/// # Errors
/// If data or files are malformed, or the predictions file exists.
pub fn eval(options: &EvalOptions, screen: &Screen) -> Result<EvalSummary, TrainError> {
    eval_with(&Alone, options, screen)
}

/// Evaluates a model on a data file together with other ranks, which share the examples; all have the same summary. The first rank
/// writes the predictions, and the others print nothing.
///
/// # Errors
/// As [`eval()`], and [`TrainError::Rank`] if another rank differs or has ended.
pub fn eval_with(
    ranks: &dyn Ranks,
    options: &EvalOptions,
    screen: &Screen,
) -> Result<EvalSummary, TrainError> {
    let quiet = &Screen::quiet();
    let screen = if ranks.is_first() { screen } else { quiet };
    if let Some(path) = &options.predictions {
        let inputs = Inputs::new(&options.model, &options.adapters, [Some(&options.data)]);
        inputs.refuse_file("predictions", path)?;
        check_file(path, Overwrite::from(options.overwrite))?;
    }
    let sources = &Sources::open_for(&options.model, &options.adapters.selection()?, options.task)?;
    let task = match options.task {
        Some(task) => task,
        None => sources.task()?,
    };
    options.check(task)?;
    if task != TaskName::CausalLm {
        return labelled::eval(task, options, sources, ranks, screen);
    }
    dispatch!(sources.model.config(),
        causal M(config) => causal::eval::<M>(options, sources, config, ranks, screen),
        encoder M(_) => Err(causal::no_language_model(sources)),
    )
}
