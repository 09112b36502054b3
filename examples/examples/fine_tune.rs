//! Fine-tuning from a Rust program: `cargo run --release --example fine_tune`.
#![recursion_limit = "256"]
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

use lora_train::progress::Screen;

fn main() -> Result<(), lora_train::TrainError> {
    let summary =
        lora_examples::fine_tune::run("out/fine_tune".as_ref(), 100, &mut Screen::detect())?;
    println!(
        "{} steps, saved {}",
        summary.steps,
        summary.weights.display()
    );
    Ok(())
}
