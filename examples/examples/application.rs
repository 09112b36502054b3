//! Inference with an adapter in an application:
//! `cargo run --release --example application -- MODEL [ADAPTER]`, with prompts on standard input.
#![recursion_limit = "256"]
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

use burn::tensor::Device;
use lora_examples::application::Writer;
use std::io::BufRead;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let model = arguments
        .next()
        .ok_or("usage: application MODEL [ADAPTER]")?;
    let adapter = arguments.next();
    let writer = Writer::open(&model, adapter.as_deref(), Device::default())?;
    for prompt in std::io::stdin().lock().lines() {
        println!("{}", writer.write(&prompt?, 64)?);
    }
    Ok(())
}
