//! Fine-tuning an encoder to classify sentences, and predicting with it.

use crate::fine_tune::folder;
use lora_train::TrainError;
use lora_train::jobs::{AdapterOptions, PredictOptions, Predicted, TrainPlan, predict, train};
use lora_train::options::{TargetNames, TrainOptions};
use lora_train::progress::Screen;
use lora_train::task::TaskName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// New sentences in the form of the data, with a space before each punctuation mark: one about a family-friendly
/// place, and one about another.
pub const SENTENCES: [&str; 2] = [
    "Bring the children : The Eagle is a family friendly pub by the river .",
    "The Punter is an expensive restaurant and is not family - friendly .",
];

/// Result of the example.
#[derive(Debug)]
pub struct Outcome {
    /// Accuracy on held-out sentences with an untrained head.
    pub before: f64,
    /// Accuracy after training.
    pub after: f64,
    /// Predictions for [`SENTENCES`].
    pub predicted: Vec<Predicted>,
    /// Directory of the adapter, which includes the head.
    pub adapter: PathBuf,
}

/// Trains an encoder, the shipped one or that in `model`, to recognize sentences about family-friendly restaurants.
///
/// # Errors
/// Fails in the cases of [`train`] and [`predict`].
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
        data: vec![data.join("train.jsonl")],
        eval_data: Some(data.join("eval.jsonl")),
        output: Some(output.into()),
        rank: Some(8),
        alpha: Some(16.0),
        targets: Some(TargetNames::Text("all-linear".into())),
        // The shipped encoder has random weights: its embeddings are fully trained as well, at a learning
        // rate that would be too high for a pretrained model. The head is always fully trained.
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
    let mut predicted = Vec::new();
    predict(&options, screen, &mut |prediction| {
        predicted.push(prediction);
        Ok(())
    })?;
    // An interrupted run has no metrics.
    let accuracy = |metrics: &BTreeMap<String, f64>| metrics.get("accuracy").copied();
    Ok(Outcome {
        before: accuracy(&summary.before).unwrap_or(f64::NAN),
        after: accuracy(&summary.after).unwrap_or(f64::NAN),
        predicted,
        adapter: summary.weights,
    })
}
