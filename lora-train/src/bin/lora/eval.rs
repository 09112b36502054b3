//! `lora eval`.

use lora_train::TrainError;
use lora_train::jobs::{EvalOptions, eval_with};
use lora_train::progress::{Screen, print_line, print_row};
use lora_train::trainer::ranks::Ranks;

pub fn run(options: &EvalOptions, ranks: &dyn Ranks) -> Result<(), TrainError> {
    let summary = eval_with(ranks, options, &Screen::detect())?;
    if !ranks.is_first() {
        return Ok(());
    }
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
