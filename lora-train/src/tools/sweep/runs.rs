//! The runs of a sweep, one after another, each through the ordinary job and in a directory of its own.

use super::grid::{Grid, PlannedRun};
use super::report::{RunResult, RunState, SweepReport};
use super::saved::{RESULTS, RUNS, SavedSweep, others};
use crate::TrainError;
use crate::jobs::{INTERRUPTED, TrainPlan, train};
use crate::memory::restart_peak_mib;
use crate::options::TrainOptions;
use crate::progress::Screen;
use crate::tools::runs::RunFiles;
use crate::trainer::{CheckpointDir, differences};
use burn_train::Interrupter;
use lora_core::files::{DirLock, Overwrite, write_file};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use toml::Table;

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
        report.runs.extend(earlier(&output, &report.keys, &plans)?);
    }
    let names: BTreeSet<&str> = report.runs.iter().filter_map(name).collect();
    report.others = others(&output, &names);
    report.regroup();
    save(&report, &output.join(RESULTS))?;
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
        report.regroup();
        save(&report, &output.join(RESULTS))?;
        if report.interrupted {
            break;
        }
    }
    Ok(report)
}

/// Returns the name of a run's directory.
fn name(run: &RunResult) -> Option<&str> {
    Path::new(&run.dir).file_name()?.to_str()
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
    same_options(&files, plan, None)?;
    Ok(ended(files, open(plan)))
}

/// Returns the complete runs of earlier passes over these keys that are not among the plans.
///
/// # Errors
/// If the earlier sweep varied other options, a run has others beside those that vary, or a file is malformed.
fn earlier(
    output: &Path,
    keys: &[String],
    plans: &[PlannedRun],
) -> Result<Vec<RunResult>, TrainError> {
    let (Some(saved), Some(plan)) = (SavedSweep::read(output)?, plans.first()) else {
        return Ok(Vec::new());
    };
    if saved.keys != keys {
        let shown = |keys: &[String]| match keys {
            [] => "nothing but seeds".to_string(),
            keys => keys.join(", "),
        };
        let message = format!(
            "finds a sweep over {} in {}, and this one is over {}; give the same options in the same order, another output, or \
             --overwrite",
            shown(&saved.keys),
            output.display(),
            shown(keys)
        );
        return Err(TrainError::config("resume", message));
    }
    let planned: BTreeSet<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
    let mut runs = Vec::new();
    for run in saved.runs {
        let Some(name) = run.name().filter(|name| !planned.contains(name)) else {
            continue;
        };
        let dir = output.join(RUNS).join(name);
        if !RunFiles::is_run(&dir) {
            continue;
        }
        let files = RunFiles::read(&dir)?;
        if files.after.is_some() {
            same_options(&files, plan, Some(keys))?;
        }
        let result = RunResult {
            dir: dir.display().to_string(),
            values: run.values,
            seed: run.seed,
            ..RunResult::default()
        };
        runs.extend(ended(files, result));
    }
    Ok(runs)
}

/// Adds to a run's result what its last line says; `None` without one.
fn ended(files: RunFiles, result: RunResult) -> Option<RunResult> {
    let after = files.after?;
    let parameters = after.trainable.map(usize::try_from);
    Some(RunResult {
        state: RunState::Complete,
        metrics: after.after,
        parameters: parameters.and_then(Result::ok),
        seconds: after.phases.get("training").copied().flatten(),
        ..result
    })
}

/// Refuses a run with other options than a plan's. With `varied`, these keys and the seed may differ.
fn same_options(
    files: &RunFiles,
    plan: &PlannedRun,
    varied: Option<&[String]>,
) -> Result<(), TrainError> {
    if files.recipe.is_empty() {
        return Ok(());
    }
    let dir = files.dir.display();
    let refuse = |message: String| TrainError::config("resume", message);
    let other: Result<TrainOptions, toml::de::Error> = files.recipe.clone().try_into();
    let other = other.map_err(|error| refuse(format!("{dir}: {error}")))?;
    let other = as_text(other, varied)?;
    let own = as_text(plan.options.clone().absolute()?, varied)?;
    if other == own {
        return Ok(());
    }
    Err(refuse(format!(
        "finds a run with other options in {dir} ({}); give the same ones, another output, or --overwrite",
        differences(&other, &own)
    )))
}

/// Returns the options as a recipe, but for those about the output. With `varied`, it has neither these keys nor the seed.
fn as_text(options: TrainOptions, varied: Option<&[String]>) -> Result<String, TrainError> {
    let text = TrainOptions {
        output: None,
        overwrite: false,
        ..options
    }
    .to_toml()?;
    let Some(varied) = varied else {
        return Ok(text);
    };
    let table: Result<Table, toml::de::Error> = text.parse();
    let mut table = table.map_err(|error| TrainError::config("resume", error.to_string()))?;
    table.retain(|key, _| key != "seed" && !varied.iter().any(|varied| varied == key));
    Ok(table.to_string())
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
    // A run without a checkpoint starts again.
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
        metrics: finite(summary.after),
        parameters: Some(summary.trainable),
        seconds: Some(summary.seconds),
        ..open(plan)
    })
}

/// Returns metrics as `metrics.jsonl` has them: those that are not finite are `None`.
fn finite(metrics: BTreeMap<String, f64>) -> BTreeMap<String, Option<f64>> {
    let metrics = metrics.into_iter();
    metrics
        .map(|(name, value)| (name, Some(value).filter(|value| value.is_finite())))
        .collect()
}
