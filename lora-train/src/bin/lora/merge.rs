//! `lora merge`.

use lora_train::TrainError;
use lora_train::jobs::{MergeOptions, merge};

pub fn run(options: &MergeOptions) -> Result<(), TrainError> {
    println!("{}", merge(options)?);
    Ok(())
}
