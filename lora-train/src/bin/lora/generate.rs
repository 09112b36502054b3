//! `lora generate`.

use lora_train::TrainError;
use lora_train::jobs::{GenerateOptions, generate_with};
use lora_train::progress::{Screen, print_json, print_text};
use lora_train::trainer::ranks::Ranks;

pub fn run(options: &GenerateOptions, ranks: &dyn Ranks) -> Result<(), TrainError> {
    generate_with(ranks, options, &Screen::detect(), &mut |continuation| {
        if options.json {
            print_json(serde_json::json!(continuation))
        } else if options.chat {
            print_text(continuation.text)
        } else {
            print_text(format_args!("{}{}", continuation.prompt, continuation.text))
        }
    })
}
