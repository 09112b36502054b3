//! Training on data with texts of real lengths.

use super::{BenchReport, Timing};
use crate::TrainError;
use crate::data::BatchSize;
use crate::device::{self, DeviceName};
use crate::jobs::plan::TrainPlan;
use crate::jobs::train::train;
use crate::options::{Method, RunOptions, TrainOptions};
use crate::progress::Screen;
use crate::tools::runs::RunFiles;

/// Times an epoch, or the given number of steps, and discards the trained weights. The first step is not measured.
///
/// `tokens_per_s` counts label tokens, or for a classifier the tokens of the texts.
///
/// # Errors
/// The errors of `lora train`; also for a run of a single step.
pub fn bench_epoch(options: &RunOptions, screen: &mut Screen) -> Result<BenchReport, TrainError> {
    let options = options.clone().resolve()?;
    let parent = tempfile::tempdir().map_err(TrainError::io(&std::env::temp_dir()))?;
    let output = parent.path().join("run");
    let options = TrainOptions {
        output: Some(output.clone()),
        eval_data: None,
        eval_split: None,
        eval_split_seed: None,
        generate_prompts: None,
        early_stopping: None,
        keep_best: false,
        metric: None,
        merge: false,
        resume: false,
        save_steps: Some(0),
        epochs: Some(1),
        ..options
    };
    let device = device::open(options.device.unwrap_or(DeviceName::Auto))?;
    let plan = TrainPlan::new(options)?;
    let model = plan.model.display().to_string();
    let (size, most) = match plan.batch {
        BatchSize::Examples(examples) => ("batch_size", examples),
        BatchSize::PaddedTokens(tokens) => ("batch_tokens", tokens),
        BatchSize::PackedTokens(tokens) => ("packed_tokens", tokens),
    };
    let method = match &plan.lora {
        Some(lora) if plan.method == Method::default() => format!("LoRA r={}", lora.rank),
        _ => plan.method.to_string(),
    };
    let summary = train(plan, burn_train::Interrupter::new(), screen)?;
    let run = RunFiles::read(&output)?;
    let steps = run.steps.iter();
    let steps = steps.filter_map(|step| Some((step.tokens?, step.seconds?)));
    let steps: Vec<(u64, f64)> = steps.collect();
    let ([first, counted @ ..], Some(last)) = (steps.as_slice(), steps.last()) else {
        return Err(TrainError::config("max_steps", "is 0"));
    };
    if counted.is_empty() {
        let message = "is 1, and the first step is not measured; give more, or more data";
        return Err(TrainError::config("max_steps", message));
    }
    let turns = steps.windows(2);
    let timing = Timing::new(turns.map(|two| two[1].1 - two[0].1).collect());
    let tokens: u64 = counted.iter().map(|(tokens, _)| tokens).sum();
    let seconds = last.1 - first.1;
    let report = BenchReport::new("epoch", model, method, &device, &timing, summary.trainable)
        .with(size, most as f64)
        .with("steps", counted.len() as f64)
        .with("tokens", tokens as f64)
        .with("seconds", seconds)
        .with("tokens_per_s", tokens as f64 / seconds);
    Ok(report)
}
