//! `lora analyze`.

use lora_train::TrainError;
use lora_train::progress::Screen;
use lora_train::tools::{AnalyzeOptions, analyze};

pub fn run(options: &AnalyzeOptions) -> Result<(), TrainError> {
    let report = analyze(options, &Screen::detect())?;
    super::print_report(&report, options.prints_json())
}
