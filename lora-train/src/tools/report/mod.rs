//! Training runs as one HTML page, which needs no other file and runs no script.
//!
//! | file | contents |
//! | --- | --- |
//! | `page` | the page, its head and its styles |
//! | `parts` | elements of pages: tables, cells with exact values, bars |
//! | `summary` | runs side by side: settings, scores before and after |
//! | `curves` | loss, scores, learning rate and gradient norm over steps |
//! | `texts` | generated texts beside their references; confusion matrices |
//! | `costs` | time and memory by purpose |
//! | `numbers` | tables of steps and evaluations |
//!
//! Texts of files are escaped wherever they are (`markup::Text`), and the page forbids its reader to load or run
//! anything, so that no dataset can put more than text on it.

mod costs;
mod curves;
mod numbers;
mod page;
mod parts;
mod summary;
mod texts;

use super::runs::RunFiles;
use super::sweep::{RUNS, SavedSweep, others};
use crate::TrainError;
use crate::jobs::inputs::Inputs;
use clap::Args;
use lora_core::files::{Overwrite, check_file, write_file};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Largest number of runs on a page.
const MOST_RUNS: usize = 64;

/// Options of `lora report`.
#[derive(Args, Clone, Debug)]
pub struct ReportOptions {
    /// Output directories of `lora train`, or of `lora sweep` for all its runs.
    #[arg(required = true, value_name = "OUT")]
    pub runs: Vec<PathBuf>,
    /// Page to write.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// Replace the page if it exists.
    #[arg(long)]
    pub overwrite: bool,
}

/// Run with the name that the page has for it.
struct Named {
    name: String,
    files: RunFiles,
}

/// Writes the page, and returns a summary.
///
/// # Errors
/// If a directory has no run, a file of a run is malformed, or the page exists.
pub fn report(options: &ReportOptions) -> Result<String, TrainError> {
    let overwrite = Overwrite::from(options.overwrite);
    let inputs = Inputs::of(options.runs.iter().map(PathBuf::as_path));
    inputs.refuse("output", &options.output)?;
    let extension = options.output.extension().and_then(|end| end.to_str());
    if !extension.is_some_and(|end| ["html", "htm"].contains(&end)) {
        // No file of a run has such a name.
        let message = format!(
            "is {}, expected a name that ends in .html",
            options.output.display()
        );
        return Err(TrainError::config("output", message));
    }
    check_file(&options.output, overwrite)?;
    let (mut dirs, mut left) = (Vec::new(), Vec::new());
    for dir in &options.runs {
        let runs = dir.join(RUNS);
        if RunFiles::is_run(dir) || !runs.is_dir() {
            dirs.push(dir.clone());
        } else {
            dirs.extend(runs_in(dir, &mut left)?);
        }
    }
    if dirs.len() > MOST_RUNS {
        let message = format!("are {}; a page has at most {MOST_RUNS}", dirs.len());
        return Err(TrainError::config("runs", message));
    }
    let runs = dirs.iter().map(|dir| RunFiles::read(dir));
    let runs = named(runs.collect::<Result<Vec<_>, _>>()?);
    let page = page::page(&runs);
    write_file(&options.output, overwrite, |file| {
        file.write_all(page.as_bytes())
    })?;
    let count = runs.len();
    let runs = if count == 1 { "run" } else { "runs" };
    let mut told = format!("wrote {} with {count} {runs}", options.output.display());
    if !left.is_empty() {
        told += &format!("; left out, of another sweep: {}", left.join(", "));
    }
    Ok(told)
}

/// Returns the runs of a sweep in their order; without its results, all that are there by name. One that has not started is left out.
/// `left` gets those that are not of this sweep.
fn runs_in(sweep: &Path, left: &mut Vec<String>) -> Result<Vec<PathBuf>, TrainError> {
    let folder = &sweep.join(RUNS);
    let names: Vec<String> = match SavedSweep::read(sweep)? {
        None => others(sweep, &BTreeSet::new()),
        Some(saved) => {
            let names: Vec<&str> = saved.runs.iter().filter_map(|run| run.name()).collect();
            left.extend(others(sweep, &names.iter().copied().collect()));
            names.into_iter().map(String::from).collect()
        }
    };
    let dirs = names.iter().map(|name| folder.join(name));
    let dirs: Vec<PathBuf> = dirs.filter(|dir| RunFiles::is_run(dir)).collect();
    if dirs.is_empty() {
        let message = format!("{} has no run with a step yet", folder.display());
        return Err(TrainError::config("runs", message));
    }
    Ok(dirs)
}

/// Names the runs by their directories: by the last component of the path, or by all if that is not enough.
fn named(runs: Vec<RunFiles>) -> Vec<Named> {
    let short = |run: &RunFiles| {
        let canonical = run.dir.canonicalize().unwrap_or_else(|_| run.dir.clone());
        let name = canonical.file_name().unwrap_or(canonical.as_os_str());
        name.to_string_lossy().into_owned()
    };
    let distinct: BTreeSet<String> = runs.iter().map(short).collect();
    let are_short = distinct.len() == runs.len();
    runs.into_iter()
        .map(|files| Named {
            name: if are_short {
                short(&files)
            } else {
                files.dir.display().to_string()
            },
            files,
        })
        .collect()
}
