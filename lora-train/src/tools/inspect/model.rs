//! A model, or a file of weights.

use super::report::{Findings, ModelReport, WeightsReport};
use super::values::{dtypes, tensor};
use crate::TrainError;
use lora_models::ModelError;
use lora_models::checkpoint::Checkpoint;
use lora_models::{ModelConfig, model_type};
use std::path::Path;

/// Describes the directory of a model.
///
/// # Errors
/// If there are neither weights nor a configuration, or the weights cannot be read.
pub(super) fn describe(path: &Path, values: bool) -> Result<ModelReport, TrainError> {
    let kind = model_type(path);
    let mut report = ModelReport {
        model_type: kind.as_ref().ok().cloned(),
        ..ModelReport::default()
    };
    let config = kind.and_then(|_| ModelConfig::from_dir(path));
    let configured = config.map(|config| add_sizes(&mut report, &config));
    match Checkpoint::open(path) {
        Ok(checkpoint) => {
            let mut unusual = Findings::default();
            if let Err(error) = configured {
                unusual.add("config", error);
            }
            report.weights = weights(&checkpoint, values, unusual);
        }
        Err(error @ (ModelError::MissingFile { .. } | ModelError::NotAModel { .. })) => {
            configured?;
            report.weights.unusual.add("missing_tensor", error);
        }
        Err(error) => return Err(error.into()),
    }
    report.weights.path = path.display().to_string();
    Ok(report)
}

/// Describes an opened file of weights, with one tensor in memory at a time.
pub(super) fn weights(
    checkpoint: &Checkpoint,
    values: bool,
    mut unusual: Findings,
) -> WeightsReport {
    let mut tensors = Vec::with_capacity(checkpoint.len());
    for name in checkpoint.names() {
        let tensor = tensor(checkpoint, name, values, &mut unusual);
        if tensor.norm == Some(0.0) && !name.ends_with("bias") {
            unusual.add_on("zero", name, format!("`{name}` is all zero"));
        }
        tensors.push(tensor);
    }
    if tensors.is_empty() {
        unusual.add("missing_tensor", "it has no tensors");
    }
    if !checkpoint.root().is_empty() {
        let message = format!(
            "its names begin with `{}`, which is left out here",
            checkpoint.root()
        );
        unusual.add("root", message);
    }
    let training = checkpoint.training_state().len();
    if training > 0 {
        let message =
            format!("{training} tensors belong to the state of a training, and are left out here");
        unusual.add("training_state", message);
    }
    let files = checkpoint.files();
    let dtypes = dtypes(checkpoint);
    WeightsReport {
        path: checkpoint.path().display().to_string(),
        source: Some(checkpoint.source().to_string()),
        files: files.map(|file| file.display().to_string()).collect(),
        file_bytes: checkpoint.file_bytes(),
        parameters: dtypes.values().map(|count| count.parameters).sum(),
        dtypes,
        tensors,
        metadata: checkpoint.metadata(),
        values_read: values,
        unusual,
    }
}

/// Adds the sizes of a configuration.
fn add_sizes(report: &mut ModelReport, config: &ModelConfig) {
    let sizes = config.sizes();
    report.layers = Some(sizes.layers);
    report.width = Some(sizes.d_model);
    report.heads = Some(sizes.heads);
    report.vocabulary = Some(sizes.vocab_size);
    report.max_length = Some(sizes.max_length);
    report.tied_head = sizes.tied_head;
    report.labels = config.labels().map(super::label_names);
    report.targets = config.usual_targets();
}
