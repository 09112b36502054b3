//! `lora diff`.

use lora_train::TrainError;
use lora_train::tools::{DiffOptions, diff};
use std::process::ExitCode;

/// Exit codes as those of `diff`: 0 the same, 1 different, 2 trouble.
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
    match options.json {
        true => println!("{}", super::json(&report)?),
        false => print!("{report}"),
    }
    Ok(report.same)
}
