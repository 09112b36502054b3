//! `lora sweep`.

use lora_train::TrainError;
use lora_train::progress::{Screen, is_closed_pipe, print, print_json};
use lora_train::tools::{SweepOptions, sweep};
use std::process::ExitCode;

/// Runs `lora sweep`. Exit codes: 0 all runs are complete, 1 some failed or were interrupted, 2 bad usage.
pub fn run(options: &SweepOptions) -> ExitCode {
    match all(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error @ TrainError::Config { .. }) => super::failed(&error, 2),
        Err(error) => super::failed(&error, 1),
    }
}

fn all(options: &SweepOptions) -> Result<bool, TrainError> {
    let interrupter = super::interrupt::interrupter()?;
    let report = sweep(options, &interrupter, &mut Screen::detect())?;
    let mut shown = print(&report);
    if options.json && shown.is_ok() {
        let line = serde_json::to_string(&report);
        let line = line.map_err(|error| TrainError::config("json", error.to_string()))?;
        shown = print_json(line);
    }
    match shown {
        // The exit code and the file say the rest.
        Err(error) if !is_closed_pipe(&error) => Err(error),
        _ => Ok(report.is_complete()),
    }
}
