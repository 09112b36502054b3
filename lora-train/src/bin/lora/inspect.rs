//! `lora inspect`.

use clap::Args;
use lora_train::TrainError;
use lora_train::run::inspect;
use std::path::PathBuf;

#[derive(Args)]
pub struct Inspect {
    /// Directory of a PEFT adapter or of a model.
    path: PathBuf,
}

impl Inspect {
    pub fn run(&self) -> Result<(), TrainError> {
        print!("{}", inspect(&self.path)?);
        Ok(())
    }
}
