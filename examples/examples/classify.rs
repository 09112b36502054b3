//! Fine-tuning an encoder to classify sentences, and predicting with it: `cargo run --release --example classify [-- MODEL]`.
#![recursion_limit = "256"]
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

use lora_examples::classify::{SENTENCES, run};
use lora_train::jobs::Predicted;
use lora_train::progress::Screen;
use std::path::PathBuf;

fn main() -> Result<(), lora_train::TrainError> {
    let model = std::env::args_os().nth(1).map(PathBuf::from);
    let output = "out/classify".as_ref();
    let outcome = run(model.as_deref(), output, &mut Screen::detect())?;
    println!("Is the place family-friendly?");
    println!(
        "accuracy on held-out sentences: {:.1} % before, {:.1} % after",
        100.0 * outcome.before,
        100.0 * outcome.after
    );
    for (sentence, predicted) in SENTENCES.iter().zip(&outcome.predicted) {
        if let Predicted::Class { prediction, .. } = predicted {
            println!("{prediction:4} {sentence}");
        }
    }
    println!("saved {}", outcome.adapter.display());
    Ok(())
}
