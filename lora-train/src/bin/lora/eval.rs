//! `lora eval`.

use lora_train::TrainError;
use lora_train::jobs::{EvalOptions, eval};
use lora_train::progress::{Screen, print_line, print_row};

pub fn run(options: &EvalOptions) -> Result<(), TrainError> {
    let summary = eval(options, &Screen::detect())?;
    for (name, value) in &summary.metrics {
        print_row(format_args!("{name:20} {value:.4}"))?;
    }
    if let Some(confusion) = &summary.confusion {
        print_line(format_args!("\n{confusion}"))?;
    }
    if let Some(path) = &options.predictions {
        print_line(format_args!("saved {}", path.display()))?;
    }
    Ok(())
}
