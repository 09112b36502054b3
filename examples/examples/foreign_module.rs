//! Adapters on a plain Burn module: `cargo run --release --example foreign_module`.
#![recursion_limit = "256"]
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

fn main() -> Result<(), lora_core::LoraError> {
    let outcome = lora_examples::foreign_module::run("out/foreign_module".as_ref())?;
    println!("{outcome:#?}");
    Ok(())
}
