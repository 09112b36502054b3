//! `lora diff`.

use lora_train::TrainError;
use lora_train::progress::is_closed_pipe;
use lora_train::tools::{DiffOptions, diff};
use std::process::ExitCode;

/// Runs `lora diff`. Exit codes as for `diff`: 0 same, 1 different, 2 failed.
pub fn run(options: &DiffOptions) -> ExitCode {
    match compare(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => super::failed(&error, 2),
    }
}

fn compare(options: &DiffOptions) -> Result<bool, TrainError> {
    let report = diff(options)?;
    match super::print_report(&report, options.json) {
        // The exit code says the rest.
        Err(error) if !is_closed_pipe(&error) => Err(error),
        _ => Ok(report.same),
    }
}
