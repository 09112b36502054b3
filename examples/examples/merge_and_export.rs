//! Merging, verifying and exporting an adapter: `cargo run --release --example merge_and_export`.
#![recursion_limit = "256"]
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

use lora_examples::merge_and_export::{PROMPTS, run};
use lora_train::progress::Screen;

fn main() -> Result<(), lora_train::TrainError> {
    let outcome = run("out/merge_and_export".as_ref(), 12, &mut Screen::detect())?;
    for (index, prompt) in PROMPTS.iter().enumerate() {
        println!("\n{prompt}");
        for (name, texts) in [
            ("base", &outcome.base),
            ("with its adapter", &outcome.adapted),
            ("merged, f32", &outcome.full.texts),
            ("merged, bf16", &outcome.half.texts),
        ] {
            println!("  {name:17} {}", texts[index].trim());
        }
    }
    println!(
        "\nlargest difference of a logit: f32 {:.1e}, bf16 {:.1e}",
        outcome.full.difference, outcome.half.difference
    );
    println!("unmerged bit for bit: {}", outcome.unmerged);
    Ok(())
}
