//! Cost of several adapters on GPT-2 small, for `benchmarks/`.
//!
//! `cargo run --release --example adapter_costs -- [ROUNDS] [BATCH] [SEQ]`: random weights in the published shape, random
//! tokens, as many adapters as examples, each of rank 8 on `c_attn`. Every round times each case in turn. Prints the minima as
//! one line of JSON.
#![recursion_limit = "256"]
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::{LoraConfig, LoraInit, TargetModules};
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::{LoraModel, ModelAdapters};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    lora_train::memory::keep_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| match arguments.next() {
        None => Ok(default),
        Some(text) => text.parse::<usize>(),
    };
    let (rounds, batch, seq) = (number(8)?, number(8)?, number(128)?);
    let device = Device::default();
    let base = Gpt2LmHead::init(&Gpt2Config::default(), 0, &device)?;
    let mut adapters = base.clone().named_adapters()?;
    for index in 0..batch {
        // Both factors random, as in a trained adapter.
        let lora = LoraConfig::new(8)
            .with_alpha(16.0)
            .with_init(LoraInit::Random)
            .with_seed(index as u64)
            .with_targets(TargetModules::names(["c_attn"]));
        adapters.add_trained(&format!("a{index}"), &base.clone().attach(&lora)?, None)?;
    }
    drop(base);
    let names: Vec<String> = adapters.names().map(String::from).collect();
    let different: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
    let same = vec![Some(names[0].as_str()); batch];
    let bare = vec![None; batch];
    let ids: Vec<i64> = (0..batch * seq)
        .map(|i| ((i * 7919 + 13) % 50257) as i64)
        .collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, seq]), &device);
    // Hidden states only: the projection to the vocabulary is the same in all cases.
    let forward = |names: &[Option<&str>]| -> Result<f64, Box<dyn std::error::Error>> {
        let start = Instant::now();
        let hidden = adapters.per_example(names, |model| {
            model.transformer.forward(ids.clone(), None, None, None)
        })?;
        device.sync()?;
        let seconds = start.elapsed().as_secs_f64();
        drop(hidden);
        Ok(seconds)
    };
    // A generation step has one token per row, where the cost of an adapter is most visible.
    let step = ids.clone().slice([0..batch, 0..1]);
    let one_token = |names: &[Option<&str>]| -> Result<f64, Box<dyn std::error::Error>> {
        let assigned = adapters.assign(names)?;
        let run = || {
            assigned.run(|| {
                adapters
                    .model()
                    .transformer
                    .forward(step.clone(), None, None, None)
            })
        };
        run(); // The first run stacks the adapters, as the prompt does.
        let start = Instant::now();
        run();
        device.sync()?;
        Ok(start.elapsed().as_secs_f64())
    };
    const ACTIVATIONS: usize = 1_000_000;
    let mut least = [f64::INFINITY; 8];
    let mut record = |place: usize, seconds: f64| least[place] = f64::min(least[place], seconds);
    let mut merged = adapters.merge(&names[0])?;
    for round in 0..rounds + 1 {
        let mut times = [
            forward(&bare)?,
            forward(&same)?,
            forward(&different)?,
            0.0,
            0.0,
            0.0,
            0.0,
            0.0,
        ];
        times[3] = one_token(&bare)?;
        times[4] = one_token(&same)?;
        times[5] = one_token(&different)?;
        let start = Instant::now();
        for turn in 0..ACTIVATIONS {
            adapters.activate(&names[turn % batch])?;
        }
        times[6] = start.elapsed().as_secs_f64() / ACTIVATIONS as f64;
        adapters.disable();
        let start = Instant::now();
        merged.switch(&names[(round + 1) % batch])?;
        device.sync()?;
        times[7] = start.elapsed().as_secs_f64();
        // The first round warms up.
        if round > 0 {
            times
                .iter()
                .enumerate()
                .for_each(|(place, seconds)| record(place, *seconds));
        }
    }
    println!(
        "{}",
        serde_json::json!({
            "batch": batch,
            "seq": seq,
            "adapters": batch,
            "rounds": rounds,
            "forward_base_s": least[0],
            "forward_one_adapter_s": least[1],
            "forward_different_adapters_s": least[2],
            "token_base_s": least[3],
            "token_one_adapter_s": least[4],
            "token_different_adapters_s": least[5],
            "activate_ns": least[6] * 1e9,
            "switch_merged_s": least[7],
        })
    );
    Ok(())
}
