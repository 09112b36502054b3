//! An encoder learns to classify sentences, and is used.

use crate::fine_tune::folder;
use lora_train::TrainError;
use lora_train::jobs::{AdapterOptions, PredictOptions, Predicted, TrainPlan, predict, train};
use lora_train::options::{TargetNames, TrainOptions};
use lora_train::progress::Screen;
use lora_train::task::TaskName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// New sentences in the form of the data, which has a space before each punctuation mark: of a place
/// for families, and of one that is none.
pub const SENTENCES: [&str; 2] = [
    "Bring the children : The Eagle is a family friendly pub by the river .",
    "The Punter is an expensive restaurant and is not family - friendly .",
];

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The share of held-out sentences that the model classified rightly with a fresh head.
    pub before: f64,
    /// The same after training.
    pub after: f64,
    /// What it says of [`SENTENCES`].
    pub predicted: Vec<Predicted>,
    /// The adapter's directory, with the head in it.
    pub adapter: PathBuf,
}

/// Teaches an encoder whether a sentence says that a restaurant is family friendly: the shipped one, or
/// that of another directory.
///
/// # Errors
/// As [`train`] and [`predict`].
pub fn run(
    model: Option<&Path>,
    output: &Path,
    screen: &mut Screen,
) -> Result<Outcome, TrainError> {
    let random = model.is_none();
    let model = model.map_or_else(|| folder().join("models/tiny-bert"), PathBuf::from);
    let data = folder().join("data/family");
    let options = TrainOptions {
        model: Some(model.clone()),
        task: Some(TaskName::Classification),
        data: Some(data.join("train.jsonl")),
        eval_data: Some(data.join("eval.jsonl")),
        output: Some(output.into()),
        rank: Some(8),
        alpha: Some(16.0),
        targets: Some(TargetNames::Text("all-linear".into())),
        // The shipped encoder has random weights and knows no word: its embeddings train whole beside
        // the adapters, at a rate that would be too high for a pretrained one. The head always does.
        modules_to_save: random.then(|| vec!["word_embeddings".into()]),
        lr: Some(if random { 2e-3 } else { 2e-4 }),
        warmup_ratio: Some(0.1),
        batch_size: Some(16),
        epochs: Some(if random { 10 } else { 3 }),
        max_length: Some(128),
        overwrite: true,
        ..TrainOptions::default()
    };
    let interrupter = burn_train::Interrupter::new();
    let summary = train(TrainPlan::new(options)?, interrupter, screen)?;

    let options = PredictOptions {
        model,
        adapters: AdapterOptions::one(&summary.weights),
        text: SENTENCES.map(String::from).to_vec(),
        batch_size: SENTENCES.len(),
        ..PredictOptions::default()
    };
    let (predicted, _) = predict(&options, screen)?;
    // There is none after a run that was interrupted.
    let accuracy = |metrics: &BTreeMap<String, f64>| metrics.get("accuracy").copied();
    Ok(Outcome {
        before: accuracy(&summary.before).unwrap_or(f64::NAN),
        after: accuracy(&summary.after).unwrap_or(f64::NAN),
        predicted,
        adapter: summary.weights,
    })
}
