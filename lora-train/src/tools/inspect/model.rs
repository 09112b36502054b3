//! A model, or a file of weights.

use super::report::{ModelReport, TensorReport, Unusual, WeightsReport};
use super::values::{dtypes, measure};
use crate::TrainError;
use lora_models::ModelError;
use lora_models::checkpoint::{Checkpoint, is_float};
use lora_models::{ModelConfig, model_type};
use std::path::Path;

/// Describes the directory of a model.
///
/// # Errors
/// If there are neither weights nor a configuration, or the weights cannot be read.
pub(super) fn describe(path: &Path, values: bool) -> Result<ModelReport, TrainError> {
    let kind = model_type(path);
    let mut unusual = Vec::new();
    let mut report = ModelReport {
        model_type: kind.as_ref().ok().cloned(),
        ..ModelReport::default()
    };
    let configured = match &report.model_type {
        None => Ok(()),
        Some(_) => ModelConfig::from_dir(path).map(|config| add_sizes(&mut report, &config)),
    };
    let opened = Checkpoint::open(path);
    match (opened, kind) {
        (Ok(checkpoint), kind) => {
            for error in kind.err().into_iter().chain(configured.err()) {
                unusual.push(Unusual::new("config", error.to_string()));
            }
            report.weights = weights(&checkpoint, values, unusual);
        }
        (Err(error @ ModelError::MissingFile { .. }), Ok(_)) => {
            configured?;
            unusual.push(Unusual::new("missing_tensor", error.to_string()));
            report.weights.unusual = unusual;
        }
        (Err(ModelError::MissingFile { .. }), Err(error)) => return Err(error.into()),
        (Err(error), _) => return Err(error.into()),
    }
    report.weights.path = path.display().to_string();
    Ok(report)
}

/// Describes an opened file of weights.
pub(super) fn weights(
    checkpoint: &Checkpoint,
    values: bool,
    mut unusual: Vec<Unusual>,
) -> WeightsReport {
    let dtypes = dtypes(checkpoint);
    let mut tensors = Vec::with_capacity(checkpoint.len());
    for name in checkpoint.names() {
        let Some(dtype) = checkpoint.dtype(name) else {
            continue;
        };
        // One tensor in memory at a time.
        let measured = if values && is_float(dtype) {
            measure(checkpoint, name, &mut unusual)
        } else {
            None
        };
        if measured.as_ref().is_some_and(|measured| measured.is_zero()) && !name.ends_with("bias") {
            let message = format!("`{name}` is all zero");
            unusual.push(Unusual::of("zero", name, message));
        }
        tensors.push(TensorReport {
            name: name.into(),
            dtype: dtype.to_string(),
            shape: checkpoint.shape(name).unwrap_or_default().to_vec(),
            norm: measured.map(|measured| measured.norm),
        });
    }
    if tensors.is_empty() {
        unusual.push(Unusual::new("missing_tensor", "it holds no tensor"));
    }
    WeightsReport {
        path: checkpoint.path().display().to_string(),
        source: Some(checkpoint.source().to_string()),
        files: checkpoint
            .files()
            .map(|file| file.display().to_string())
            .collect(),
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
