//! The runs of a sweep, one after another, each through the ordinary job and in a directory of its own.

use super::grid::{Grid, PlannedRun, RUNS};
use super::report::{RunResult, RunState, SweepReport};
use crate::TrainError;
use crate::jobs::{INTERRUPTED, TrainPlan, train};
use crate::memory::restart_peak_mib;
use crate::options::TrainOptions;
use crate::progress::Screen;
use crate::tools::runs::RunFiles;
use crate::trainer::{CheckpointDir, differences};
use burn_train::Interrupter;
use lora_core::files::{DirLock, Overwrite, write_file};
use std::fs;
use std::path::Path;

/// File with the results, in the output directory.
const RESULTS: &str = "sweep.json";

/// Runs what is not complete yet, and returns the results of all.
pub(super) fn run_all(
    base: &TrainOptions,
    grid: &Grid,
    plans: Vec<PlannedRun>,
    interrupter: &Interrupter,
    screen: &mut Screen,
) -> Result<SweepReport, TrainError> {
    let output = base.output.clone().unwrap_or_default();
    let runs = output.join(RUNS);
    if !base.resume && !base.overwrite && !is_empty(&runs) {
        return Err(TrainError::OutputExists { path: runs });
    }
    fs::create_dir_all(&runs).map_err(TrainError::io(&runs))?;
    let _lock = DirLock::acquire(&output)?;
    let mut report = SweepReport {
        output: output.display().to_string(),
        keys: grid.keys().into_iter().map(String::from).collect(),
        runs: plans.iter().map(open).collect(),
        ..SweepReport::default()
    };
    if base.resume {
        // All of them before the first run: options that do not fit are told at once.
        for (plan, result) in plans.iter().zip(&mut report.runs) {
            if let Some(complete) = complete(plan)? {
                *result = complete;
            }
        }
    }
    let all = plans.len();
    for (index, plan) in plans.into_iter().enumerate() {
        if report.runs[index].state == RunState::Complete {
            screen.line(&format!("run {}/{all}  {}: complete", index + 1, plan.name));
            continue;
        }
        screen.line(&format!("run {}/{all}  {}", index + 1, plan.name));
        report.runs[index] = match one(base, &plan, interrupter, screen) {
            Ok(result) => result,
            Err(error) => {
                screen.line(&format!(
                    "run {}/{all}  {} failed: {error}",
                    index + 1,
                    plan.name
                ));
                RunResult {
                    state: RunState::Failed,
                    error: Some(error.to_string()),
                    ..open(&plan)
                }
            }
        };
        report.interrupted = interrupter.should_stop();
        report.regroup(grid.seeds());
        save(&report, &output.join(RESULTS))?;
        if report.interrupted {
            break;
        }
    }
    report.regroup(grid.seeds());
    save(&report, &output.join(RESULTS))?;
    Ok(report)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

fn save(report: &SweepReport, path: &Path) -> Result<(), TrainError> {
    let text = serde_json::to_string_pretty(report)
        .map_err(|error| TrainError::config("json", error.to_string()))?;
    Ok(write_file(path, Overwrite::Replace, |file| {
        writeln!(file, "{text}")
    })?)
}

/// Returns the result of a run that has not ended.
fn open(plan: &PlannedRun) -> RunResult {
    RunResult {
        dir: dir(plan).display().to_string(),
        values: plan.values.clone(),
        seed: plan.seed,
        ..RunResult::default()
    }
}

fn dir(plan: &PlannedRun) -> &Path {
    plan.options.output.as_deref().unwrap_or(Path::new("."))
}

/// Returns the result of a complete run; `None` for any other.
///
/// # Errors
/// If the run in its directory has other options, or a file of it is malformed.
fn complete(plan: &PlannedRun) -> Result<Option<RunResult>, TrainError> {
    let dir = dir(plan);
    if !RunFiles::is_run(dir) {
        return Ok(None);
    }
    let files = RunFiles::read(dir)?;
    let refuse = |message: String| TrainError::config("resume", message);
    if !files.recipe.is_empty() {
        let other: Result<TrainOptions, toml::de::Error> = files.recipe.try_into();
        let other = other.map_err(|error| refuse(format!("{}: {error}", dir.display())))?;
        let (other, own) = (as_text(other)?, as_text(plan.options.clone().absolute()?)?);
        if other != own {
            return Err(refuse(format!(
                "finds a run with other options in {} ({}); give the same ones, another output, or --overwrite",
                dir.display(),
                differences(&other, &own)
            )));
        }
    }
    let Some(after) = files.after else {
        return Ok(None);
    };
    let metrics = after.after.into_iter();
    Ok(Some(RunResult {
        state: RunState::Complete,
        metrics: metrics
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
        parameters: after
            .trainable
            .and_then(|count| usize::try_from(count).ok()),
        seconds: after.phases.get("training").copied().flatten(),
        ..open(plan)
    }))
}

/// Returns the options as a recipe, but for those about the output.
fn as_text(options: TrainOptions) -> Result<String, TrainError> {
    TrainOptions {
        output: None,
        overwrite: false,
        ..options
    }
    .to_toml()
}

/// Trains one run: from its last checkpoint in a resumed sweep, or else from the start.
fn one(
    base: &TrainOptions,
    plan: &PlannedRun,
    interrupter: &Interrupter,
    screen: &mut Screen,
) -> Result<RunResult, TrainError> {
    let mut options = plan.options.clone();
    let has_checkpoint = CheckpointDir::new(dir(plan).join("checkpoints")).has_last();
    options.resume = base.resume && has_checkpoint;
    options.allow_changed_data = base.allow_changed_data && options.resume;
    // Of a run without a checkpoint there is nothing to go on from.
    options.overwrite = base.overwrite || (base.resume && !has_checkpoint);
    restart_peak_mib();
    let summary = train(TrainPlan::new(options)?, interrupter.clone(), screen)?;
    let stopped = summary.stopped.as_deref() == Some(INTERRUPTED);
    Ok(RunResult {
        state: if stopped {
            RunState::Open
        } else {
            RunState::Complete
        },
        metrics: summary.after,
        parameters: Some(summary.trainable),
        seconds: Some(summary.seconds),
        ..open(plan)
    })
}
