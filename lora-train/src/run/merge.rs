//! Merging an adapter into its model for deployment, or converting a model.

use super::labelled::{head_kind, model_labels};
use super::open::{Opens, load_trained, model_directory};
use super::plan::default_task;
use super::prefix::{export_merged, refuse_alone};
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::task::TaskName;
use burn::tensor::Device;
use clap::Args;
use lora_core::files::Overwrite;
use lora_models::ExportOptions;
use lora_models::checkpoint::ExportDType;
use lora_models::classifier::{Classifier, ClassifierOptions};
use lora_models::gpt2::Gpt2LmHead;
use std::path::{Path, PathBuf};

/// Options of `lora merge`.
#[derive(Args, Clone, Debug)]
pub struct MergeOptions {
    /// Directory of the base model.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// PEFT adapter to merge into it [default: none, the model is converted].
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Directory to write: config.json, model.safetensors and the tokenizer, as transformers loads them.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Element type of the weights: f32, f16 or bf16; the sum is taken in f32.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parse_dtype)]
    pub dtype: ExportDType,
    /// Replace the output directory if it is there.
    #[arg(long)]
    pub overwrite: bool,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
    /// Seed; nothing in a merge is random, the option is there for scripts.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

fn parse_dtype(text: &str) -> Result<ExportDType, String> {
    match text.to_ascii_lowercase().as_str() {
        "f32" | "float32" => Ok(ExportDType::F32),
        "f16" | "float16" => Ok(ExportDType::F16),
        "bf16" | "bfloat16" => Ok(ExportDType::BF16),
        _ => Err("expected f32, f16 or bf16".into()),
    }
}

/// Merges, and returns a line on what was written.
///
/// # Errors
/// On bad files, a value that does not fit in the element type, or an output that is there already.
pub fn merge(options: &MergeOptions) -> Result<String, TrainError> {
    let dir = &model_directory(&options.model)?;
    let device = device::open(options.device)?;
    match default_task(dir, options.adapter.as_deref())? {
        TaskName::CausalLm => merge_model::<Gpt2LmHead>(options, dir, &(), &device),
        task => {
            let how = ClassifierOptions {
                head: head_kind(task),
                labels: Some(model_labels(dir, options.adapter.as_deref())?),
                ..ClassifierOptions::default()
            };
            merge_model::<Classifier>(options, dir, &how, &device)
        }
    }
}

fn merge_model<M: Opens>(
    options: &MergeOptions,
    dir: &Path,
    how: &M::How,
    device: &Device,
) -> Result<String, TrainError> {
    let loaded = load_trained::<M>(dir, options.adapter.as_deref(), how, device)?;
    refuse_alone(&loaded.model, loaded.adapter.as_ref())?;
    let modules = loaded.adapter.map_or(0, |report| report.modules.len());
    let model = lora_core::merge(loaded.model).into_module();
    let overwrite = match options.overwrite {
        true => Overwrite::Replace,
        false => Overwrite::Refuse,
    };
    let export = ExportOptions {
        dtype: options.dtype,
        base_dir: Some(dir.into()),
    };
    let (report, prefix) = export_merged(model, &options.output, &export, overwrite)?;
    let mut text = format!(
        "merged {modules} modules; wrote {} parameters ({:.1} MB) to {}",
        report.parameters,
        report.tensor_bytes as f64 / 1e6,
        options.output.display()
    );
    if let Some(prefix) = prefix {
        let note = "no weight can hold the prefix, the merged model needs it as its adapter";
        text.push_str(&format!("\n{note}: {}", prefix.display()));
    }
    Ok(text)
}
