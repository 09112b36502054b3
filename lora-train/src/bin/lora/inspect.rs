//! `lora inspect`.

use lora_train::TrainError;
use lora_train::tools::{InspectOptions, inspect};

pub fn run(options: &InspectOptions) -> Result<(), TrainError> {
    let report = inspect(options)?;
    match options.json {
        true => println!("{}", super::json(&report)?),
        false => print!("{report}"),
    }
    Ok(())
}
