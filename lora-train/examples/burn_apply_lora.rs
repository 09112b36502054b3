//! Timing of GPT-2 small steps with Burn's own layers and its `apply_lora`: the peer of `lora bench step`.
//!
//! `cargo run --release --example burn_apply_lora -- --steps 8 --targets c_attn`: random weights, 8 × 128 tokens, rank 8, no dropout,
//! AdamW. With `--model DIR` the shape is that of its config.json, with `--device` the device, as in `lora bench step`. The last line
//! is JSON.
#![recursion_limit = "256"]
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

use burn::module::{Lora, Module, ParamGroup};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::{gelu_approximate, softmax};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use clap::Parser;
use lora_core::ops::device_memory_bytes;
use lora_core::trainable_summary;
use lora_train::device::{DeviceName, open};
use std::path::PathBuf;
use std::time::Instant;

/// Time training steps with Burn's `apply_lora`.
#[derive(Parser)]
struct Options {
    /// Number of measured steps, after two that are not measured
    #[arg(long, default_value_t = 8)]
    steps: usize,
    /// Modules to adapt: `c_attn` or `all-linear`
    #[arg(long, default_value = "c_attn")]
    targets: String,
    /// Directory with the config.json of a GPT-2 [default: GPT-2 small]
    #[arg(long)]
    model: Option<PathBuf>,
    /// Number of examples in a batch
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Number of tokens in an example
    #[arg(long, default_value_t = 128)]
    max_length: usize,
    /// Device to run on
    #[arg(long, value_enum, default_value_t)]
    device: DeviceName,
}

/// Shape of a GPT-2, as in its config.json.
#[derive(Clone, Copy, serde::Deserialize)]
struct Shape {
    vocab_size: usize,
    n_positions: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
}

const GPT2_SMALL: Shape = Shape {
    vocab_size: 50257,
    n_positions: 1024,
    n_embd: 768,
    n_layer: 12,
    n_head: 12,
};

#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    c_attn: Linear,
    c_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    mlp_proj: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct Gpt2 {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

impl Block {
    fn new(shape: Shape, device: &Device) -> Self {
        let d = shape.n_embd;
        let linear = |d_in, d_out| LinearConfig::new(d_in, d_out).init(device);
        let norm = || LayerNormConfig::new(d).init(device);
        Self {
            ln_1: norm(),
            c_attn: linear(d, 3 * d),
            c_proj: linear(d, d),
            ln_2: norm(),
            c_fc: linear(d, 4 * d),
            mlp_proj: linear(4 * d, d),
            heads: shape.n_head,
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &Tensor<4, Bool>) -> Tensor<3> {
        let [batch, seq, d] = x.dims();
        let fused = self.c_attn.forward(self.ln_1.forward(x.clone()));
        let heads = fused
            .reshape([batch, seq, 3 * self.heads, d / self.heads])
            .swap_dims(1, 2);
        let part = |index: usize| heads.clone().narrow(1, index * self.heads, self.heads);
        let scores = part(0).matmul(part(1).transpose()) * (1.0 / ((d / self.heads) as f64).sqrt());
        let scores = scores.mask_fill(mask.clone(), f32::NEG_INFINITY);
        let joined = softmax(scores, 3)
            .matmul(part(2))
            .swap_dims(1, 2)
            .reshape([batch, seq, d]);
        let x = x + self.c_proj.forward(joined);
        let inner = gelu_approximate(self.c_fc.forward(self.ln_2.forward(x.clone())));
        x + self.mlp_proj.forward(inner)
    }
}

impl Gpt2 {
    fn new(shape: Shape, device: &Device) -> Self {
        let d = shape.n_embd;
        Self {
            wte: EmbeddingConfig::new(shape.vocab_size, d).init(device),
            wpe: EmbeddingConfig::new(shape.n_positions, d).init(device),
            h: (0..shape.n_layer)
                .map(|_| Block::new(shape, device))
                .collect(),
            ln_f: LayerNormConfig::new(d).init(device),
        }
    }

    /// Computes the logits of all tokens, `[batch, seq, vocab]`.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let device = ids.device();
        let [_, seq] = ids.dims();
        let positions = Tensor::<1, Int>::arange(0..seq as i64, &device).unsqueeze();
        let mask = Tensor::<2, Bool>::tril_mask([seq, seq], 0, &device).unsqueeze::<4>();
        let mut x = self.wte.forward(ids) + self.wpe.forward(positions);
        for block in &self.h {
            x = block.forward(x, &mask);
        }
        let x = self.ln_f.forward(x);
        x.matmul(self.wte.weight.val().transpose().unsqueeze())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The same memory settings as the program.
    lora_train::memory::keep_freed_memory();
    let options = Options::parse();
    let names: &[&str] = match options.targets.as_str() {
        "c_attn" => &["c_attn"],
        "all-linear" => &["c_attn", "c_proj", "c_fc", "mlp_proj"],
        other => return Err(format!("`{other}`, expected c_attn or all-linear").into()),
    };
    let shape = match &options.model {
        Some(dir) => serde_json::from_slice(&std::fs::read(dir.join("config.json"))?)?,
        None => GPT2_SMALL,
    };
    let (batch, seq) = (options.batch_size, options.max_length);
    let base = open(options.device)?;
    let device = base.clone().autodiff();
    let paths = (0..shape.n_layer).flat_map(|layer| {
        let path = move |name: &&str| format!("h.{layer}.{name}.weight");
        names.iter().map(path).collect::<Vec<_>>()
    });
    let group = ParamGroup::from_paths(paths.collect::<Vec<_>>());
    let mut model = Gpt2::new(shape, &device).apply_lora(Lora::new(8, 16.0).set_param_group(group));
    let trainable = trainable_summary(&model).trainable;
    let mut optimizer = AdamWConfig::new().init();
    let ids: Vec<i64> = (0..batch * seq)
        .map(|i| ((i * 7919 + 13) % shape.vocab_size) as i64)
        .collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, seq]), &device);
    let rows = batch * (seq - 1);
    let targets = ids.clone().narrow(1, 1, seq - 1).reshape([rows]);
    let loss = CrossEntropyLossConfig::new().init(&device);
    let mut seconds = Vec::new();
    for _ in 0..options.steps + 2 {
        let start = Instant::now();
        let logits = model.forward(ids.clone()).narrow(1, 0, seq - 1);
        let loss = loss.forward(logits.reshape([rows, shape.vocab_size]), targets.clone());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-4, model, grads);
        loss.into_scalar::<f32>();
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut seconds = seconds.split_off(2);
    seconds.sort_by(f64::total_cmp);
    println!(
        "{}",
        serde_json::json!({
            "peer": "Burn's apply_lora",
            "bench": "step",
            "targets": names,
            "median_s": seconds[seconds.len() / 2],
            "min_s": seconds[0],
            "peak_mib": lora_train::memory::peak_mib(),
            "device_mib": device_memory_bytes(&base).map(|bytes| bytes as f64 / (1 << 20) as f64),
            "trainable": trainable,
        })
    );
    Ok(())
}
