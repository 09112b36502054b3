//! `lora doctor`.

use lora_train::TrainError;
use lora_train::progress::{Screen, is_closed_pipe, print_message};
use lora_train::tools::doctor::{DoctorOptions, Verdict, doctor};
use std::path::Path;
use std::process::ExitCode;

/// Runs `lora doctor`. Exit codes: 0 right, 1 wrong or unusable, 2 failed.
pub fn run(options: &DoctorOptions) -> ExitCode {
    match examine(options) {
        Ok(Verdict::Ok | Verdict::Incomplete) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong | Verdict::Unusable) => ExitCode::FAILURE,
        Err(error) => super::failed(&error, 2),
    }
}

fn examine(options: &DoctorOptions) -> Result<Verdict, TrainError> {
    let report = doctor(options, &Screen::detect())?;
    let standard_output = options.json.as_deref() == Some(Path::new("-"));
    match super::print_report(&report, standard_output) {
        // The exit code and the file say the rest.
        Err(error) if !is_closed_pipe(&error) => return Err(error),
        _ => {}
    }
    if let Some(path) = options.json.as_deref().filter(|_| !standard_output) {
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| TrainError::config("json", error.to_string()))?;
        std::fs::write(path, text + "\n").map_err(TrainError::io(path))?;
        print_message(format_args!("wrote {}", path.display()));
    }
    Ok(report.verdict)
}
