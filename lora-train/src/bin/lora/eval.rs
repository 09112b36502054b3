//! `lora eval`.

use lora_train::TrainError;
use lora_train::jobs::{EvalOptions, eval};
use lora_train::progress::Screen;

pub fn run(options: &EvalOptions) -> Result<(), TrainError> {
    let summary = eval(options, &Screen::detect())?;
    for (name, value) in &summary.metrics {
        println!("{name:20} {value:.4}");
    }
    if let Some(confusion) = &summary.confusion {
        println!("\n{confusion}");
    }
    if let Some(path) = &options.predictions {
        println!("saved {}", path.display());
    }
    Ok(())
}
