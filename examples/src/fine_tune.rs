//! Training from a Rust program.

use lora_train::TrainError;
use lora_train::jobs::{TrainPlan, TrainSummary, train};
use lora_train::options::{TargetNames, TrainOptions};
use lora_train::progress::Screen;
use std::path::{Path, PathBuf};

/// Returns the directory of these examples.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Fine-tunes the shipped model on the shipped data for `steps` steps.
///
/// # Errors
/// Fails in the cases of [`train`].
pub fn run(output: &Path, steps: usize, screen: &mut Screen) -> Result<TrainSummary, TrainError> {
    let options = TrainOptions {
        model: Some(folder().join("models/wiki-gpt2")),
        data: vec![folder().join("data/e2e/train.txt")],
        output: Some(output.into()),
        rank: Some(4),
        alpha: Some(32.0),
        targets: Some(TargetNames::Text("c_attn[q,v]".into())),
        lr: Some(2e-3),
        batch_size: Some(4),
        max_length: Some(128),
        max_steps: Some(steps),
        overwrite: true,
        ..TrainOptions::default()
    };
    train(
        TrainPlan::new(options)?,
        burn_train::Interrupter::new(),
        screen,
    )
}
