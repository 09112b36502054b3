//! `lora generate`.

use lora_train::TrainError;
use lora_train::jobs::{GenerateOptions, generate};
use lora_train::progress::Screen;
use std::io::Write;

pub fn run(options: &GenerateOptions) -> Result<(), TrainError> {
    generate(options, &Screen::detect(), &mut |continuation| {
        let line = if options.json {
            serde_json::json!(continuation).to_string()
        } else {
            format!("{}{}", continuation.prompt, continuation.text)
        };
        let mut out = std::io::stdout().lock();
        let written = writeln!(out, "{line}").and_then(|()| out.flush());
        written.map_err(TrainError::io("standard output"))
    })
}
