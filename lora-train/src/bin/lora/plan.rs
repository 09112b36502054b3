//! `lora plan`.

use lora_train::TrainError;
use lora_train::tools::{PlanOptions, estimate};

pub fn run(options: &PlanOptions) -> Result<(), TrainError> {
    let forecast = estimate(options)?;
    match options.json {
        true => println!("{}", super::json(&forecast)?),
        false => print!("{forecast}"),
    }
    Ok(())
}
