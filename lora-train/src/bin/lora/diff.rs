//! `lora diff`.

use lora_train::TrainError;
use lora_train::tools::{DiffOptions, diff};
use std::process::ExitCode;

/// Runs `lora diff`. Exit codes as for `diff`: 0 same, 1 different, 2 failed.
pub fn run(options: &DiffOptions) -> ExitCode {
    match compare(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn compare(options: &DiffOptions) -> Result<bool, TrainError> {
    let report = diff(options)?;
    super::print_report(&report, options.json)?;
    Ok(report.same)
}
