//! Several adapters on one base: `cargo run --release --example multi_adapter`.
#![recursion_limit = "256"]
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

fn main() -> Result<(), lora_train::TrainError> {
    println!("training two adapters …");
    let outcome = lora_examples::multi_adapter::run("out/multi_adapter".as_ref(), 100)?;
    let names = || std::iter::once("base").chain(outcome.names.iter().map(String::as_str));
    println!("activated by name, one after the other:");
    for (name, text) in names().zip(&outcome.one_by_one) {
        println!("  {name:12}{text:?}");
    }
    println!("all in one batch:");
    for (name, text) in names().zip(&outcome.mixed) {
        println!("  {name:12}{text:?}");
    }
    println!("merged into the weights, one at a time:");
    for (name, text) in outcome.names.iter().zip(&outcome.merged) {
        println!("  {name:12}{text:?}");
    }
    println!(
        "the base afterwards:\n  {:12}{:?}",
        "base", outcome.base_again
    );
    println!("saved {}", outcome.tree.display());
    Ok(())
}
