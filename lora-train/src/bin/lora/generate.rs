//! `lora generate`.

use lora_train::TrainError;
use lora_train::jobs::{GenerateOptions, generate};
use lora_train::progress::Screen;

pub fn run(options: &GenerateOptions) -> Result<(), TrainError> {
    for continuation in generate(options, &Screen::detect())? {
        if options.json {
            println!("{}", serde_json::json!(continuation));
        } else {
            println!("{}{}", continuation.prompt, continuation.text);
        }
    }
    Ok(())
}
