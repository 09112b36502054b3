//! Work that a device cannot do is refused before it begins, with limit and need.

use crate::common::{fixtures, model};
use lora_core::ops::with_max_buffer_bytes;
use lora_train::TrainError;
use lora_train::device::DeviceName;
use lora_train::jobs::{TrainPlan, train};
use lora_train::options::TrainOptions;
use lora_train::progress::Screen;
use lora_train::tools::bench::{
    InferenceOptions, Shape, StepOptions, Training, bench_inference, bench_step,
};
use std::path::Path;

/// Limit for an embedding of GPT-2's fixture, `[300, 24]`, in three parts.
const LIMIT: u64 = 128 * 24 * 4;

fn options(output: &Path) -> TrainOptions {
    TrainOptions {
        model: Some(model()),
        data: vec![fixtures().join("train20/train.jsonl")],
        output: Some(output.into()),
        device: Some(DeviceName::Flex),
        max_steps: Some(1),
        max_length: Some(16),
        batch_size: Some(2),
        ..TrainOptions::default()
    }
}

fn refused<T>(result: Result<T, TrainError>, words: &[&str]) {
    let error = result.err().expect("an error").to_string();
    for word in words {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_run_above_the_limit_is_refused_before_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let run = |options: TrainOptions| {
        let plan = TrainPlan::new(options)?;
        let interrupter = burn_train::Interrupter::new();
        with_max_buffer_bytes(LIMIT, || train(plan, interrupter, &mut Screen::quiet()))
    };
    // 96 features of a token in the MLP: 2 × 16 tokens just fit.
    let large = TrainOptions {
        batch_size: Some(3),
        ..options(&output)
    };
    refused(
        run(large),
        &["batch_size", "3 × 16 tokens", "binds at most"],
    );
    let eval = TrainOptions {
        eval_data: Some(fixtures().join("train20/train.jsonl")),
        eval_batch_size: Some(3),
        ..options(&output)
    };
    refused(run(eval), &["eval_batch_size", "3 × 16 tokens"]);
    let full = TrainOptions {
        full: true,
        ..options(&output)
    };
    refused(run(full), &["full", "transformer.wte.weight", "adapter"]);
    assert!(!output.exists());
    run(options(&output)).unwrap();
}

#[test]
fn a_bench_above_the_limit_is_refused_in_words() {
    let shape = |batch: usize| Shape {
        model: Some(model()),
        batch_size: Some(batch),
        max_length: Some(16),
        device: Some(DeviceName::Flex),
        ..Shape::default()
    };
    let step = |batch: usize, full: bool| {
        let options = StepOptions {
            shape: shape(batch),
            training: Training {
                full,
                ..Training::default()
            },
            steps: Some(1),
            ..StepOptions::default()
        };
        with_max_buffer_bytes(LIMIT, || bench_step(&options))
    };
    let inference = |batch: usize| {
        let options = InferenceOptions {
            shape: shape(batch),
            steps: Some(1),
            sizes: Vec::new(),
        };
        with_max_buffer_bytes(LIMIT, || bench_inference(&options))
    };
    refused(step(3, false), &["batch_size", "3 × 16 tokens"]);
    refused(step(2, true), &["full", "transformer.wte.weight"]);
    refused(inference(3), &["batch_size", "3 × 16 tokens"]);
    step(2, false).unwrap();
    inference(2).unwrap();
}
