//! One LoRA training step of GPT-2 small, timed: our side of `benchmarks/`.
//!
//! `cargo run --release --example gpt2_step -- [STEPS] [BATCH] [SEQ] [BASE] [DIR]`: random weights in the
//! published shape, or those of a directory, random tokens, rank 8 on `c_attn`, no dropout, AdamW; the base in `f32`,
//! `int8` or `nf4`. Prints one JSON line.
#![recursion_limit = "256"]

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::ops::CrossEntropy;
use lora_core::{LoraConfig, QuantizeConfig, TargetModules, trainable_summary};
use lora_models::LoraModel;
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead, Gpt2Options};
use lora_train::trainer::AdamW;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    lora_train::memory::keep_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| match arguments.next() {
        None => Ok(default),
        Some(text) => text.parse::<usize>(),
    };
    let (steps, batch, seq) = (number(8)?, number(8)?, number(128)?);
    let base = arguments.next().unwrap_or("f32".into());
    let quantize = match base.as_str() {
        "f32" => None,
        kind => Some(QuantizeConfig::new(kind.parse()?)),
    };
    let device = Device::default().autodiff();
    let config = Gpt2Config {
        resid_pdrop: 0.0,
        embd_pdrop: 0.0,
        attn_pdrop: 0.0,
        ..Gpt2Config::default()
    };
    let lora = LoraConfig::new(8)
        .with_alpha(16.0)
        .with_targets(TargetModules::names(["c_attn"]));
    let model = match (arguments.next(), &quantize) {
        (Some(dir), _) => Gpt2LmHead::load_with(dir, &Gpt2Options { quantize }, &device)?.0,
        (None, None) => Gpt2LmHead::init(&config, 0, &device)?,
        (None, Some(quantize)) => Gpt2LmHead::init(&config, 0, &device)?.quantize(quantize)?.0,
    };
    let (mut model, _) = model.attach(&lora)?;
    let weights = trainable_summary(&model);
    let loaded = [resident_mib("VmRSS:"), resident_mib("VmHWM:")];
    let mut optimizer = AdamW::default().init(&model);
    let ids: Vec<i64> = (0..batch * seq)
        .map(|i| ((i * 7919 + 13) % 50257) as i64)
        .collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, seq]), &device);
    let targets = ids
        .clone()
        .slice([0..batch, 1..seq])
        .reshape([batch * (seq - 1)]);

    let mut seconds = Vec::new();
    for _ in 0..steps + 2 {
        let start = Instant::now();
        let hidden = model.forward_hidden(ids.clone(), None, None, None);
        let hidden = hidden
            .slice([0..batch, 0..seq - 1])
            .reshape([batch * (seq - 1), 768]);
        let summed = model.loss(hidden, targets.clone(), &CrossEntropy::default());
        let loss = summed.loss * (1.0 / (batch * (seq - 1)) as f64);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-4, model, grads);
        device.sync()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut seconds = seconds.split_off(2);
    seconds.sort_by(f64::total_cmp);
    println!(
        "{}",
        serde_json::json!({
            "batch": batch,
            "seq": seq,
            "median_s": seconds[seconds.len() / 2],
            "min_s": seconds[0],
            "peak_mib": resident_mib("VmHWM:"),
            "trainable": weights.trainable,
            "base": base,
            "frozen_bytes": weights.frozen_bytes,
            "loaded_mib": loaded[0],
            "loading_peak_mib": loaded[1],
        })
    );
    Ok(())
}

/// Resident memory, now or at its peak, where the system tells.
fn resident_mib(which: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(which))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}
