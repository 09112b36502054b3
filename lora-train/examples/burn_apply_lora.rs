//! Timing of GPT-2 small steps with Burn's own layers and its `apply_lora`: the peer of `lora bench step`.
//!
//! `cargo run --release --example burn_apply_lora -- [STEPS] [c_attn|all-linear]`: random weights in the published shape, 8 × 128
//! random tokens, rank 8, no dropout, AdamW. The last line is JSON.
#![recursion_limit = "256"]
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

use burn::module::{Lora, Module, ParamGroup};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::{gelu_approximate, softmax};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use lora_core::trainable_summary;
use std::time::Instant;

const VOCAB: usize = 50257;
const D: usize = 768;
const LAYERS: usize = 12;
const HEADS: usize = 12;
const BATCH: usize = 8;
const SEQ: usize = 128;

#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    c_attn: Linear,
    c_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    mlp_proj: Linear,
}

#[derive(Module, Debug)]
struct Gpt2 {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

impl Block {
    fn new(device: &Device) -> Self {
        let linear = |d_in, d_out| LinearConfig::new(d_in, d_out).init(device);
        let norm = || LayerNormConfig::new(D).init(device);
        Self {
            ln_1: norm(),
            c_attn: linear(D, 3 * D),
            c_proj: linear(D, D),
            ln_2: norm(),
            c_fc: linear(D, 4 * D),
            mlp_proj: linear(4 * D, D),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &Tensor<4, Bool>) -> Tensor<3> {
        let fused = self.c_attn.forward(self.ln_1.forward(x.clone()));
        let heads = fused
            .reshape([BATCH, SEQ, 3 * HEADS, D / HEADS])
            .swap_dims(1, 2);
        let part = |index: usize| heads.clone().narrow(1, index * HEADS, HEADS);
        let scores = part(0).matmul(part(1).transpose()) * (1.0 / ((D / HEADS) as f64).sqrt());
        let scores = scores.mask_fill(mask.clone(), f32::NEG_INFINITY);
        let joined = softmax(scores, 3)
            .matmul(part(2))
            .swap_dims(1, 2)
            .reshape([BATCH, SEQ, D]);
        let x = x + self.c_proj.forward(joined);
        let inner = gelu_approximate(self.c_fc.forward(self.ln_2.forward(x.clone())));
        x + self.mlp_proj.forward(inner)
    }
}

impl Gpt2 {
    fn new(device: &Device) -> Self {
        Self {
            wte: EmbeddingConfig::new(VOCAB, D).init(device),
            wpe: EmbeddingConfig::new(1024, D).init(device),
            h: (0..LAYERS).map(|_| Block::new(device)).collect(),
            ln_f: LayerNormConfig::new(D).init(device),
        }
    }

    /// Computes the logits of all tokens, `[batch, seq, vocab]`.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let device = ids.device();
        let positions = Tensor::<1, Int>::arange(0..SEQ as i64, &device).unsqueeze();
        let mask = Tensor::<2, Bool>::tril_mask([SEQ, SEQ], 0, &device).unsqueeze::<4>();
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
    let mut arguments = std::env::args().skip(1);
    let steps: usize = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let names: &[&str] = match arguments.next().as_deref() {
        None | Some("c_attn") => &["c_attn"],
        Some("all-linear") => &["c_attn", "c_proj", "c_fc", "mlp_proj"],
        Some(other) => return Err(format!("`{other}`, expected c_attn or all-linear").into()),
    };
    let device = Device::default().autodiff();
    let paths = (0..LAYERS).flat_map(|layer| {
        let path = move |name: &&str| format!("h.{layer}.{name}.weight");
        names.iter().map(path).collect::<Vec<_>>()
    });
    let group = ParamGroup::from_paths(paths.collect::<Vec<_>>());
    let mut model = Gpt2::new(&device).apply_lora(Lora::new(8, 16.0).set_param_group(group));
    let trainable = trainable_summary(&model).trainable;
    let mut optimizer = AdamWConfig::new().init();
    let ids: Vec<i64> = (0..BATCH * SEQ)
        .map(|i| ((i * 7919 + 13) % VOCAB) as i64)
        .collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [BATCH, SEQ]), &device);
    let rows = BATCH * (SEQ - 1);
    let targets = ids.clone().narrow(1, 1, SEQ - 1).reshape([rows]);
    let loss = CrossEntropyLossConfig::new().init(&device);
    let mut seconds = Vec::new();
    for _ in 0..steps + 2 {
        let start = Instant::now();
        let logits = model.forward(ids.clone()).narrow(1, 0, SEQ - 1);
        let loss = loss.forward(logits.reshape([rows, VOCAB]), targets.clone());
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
            "trainable": trainable,
        })
    );
    Ok(())
}
