//! Merging an adapter into its model for deployment, or converting a model.

use super::labelled::{head_kind, model_labels};
use super::open::{Loaded, Opens, check_base, load_trained, model_directory};
use super::plan::default_task;
use super::prefix::{PREFIX_NOTE, refuse_alone, save_beside};
use super::verify::{MergeCheck, Probe, VerifyOptions, compare};
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::progress::Screen;
use crate::task::TaskName;
use burn::tensor::Device;
use clap::Args;
use lora_core::files::{Overwrite, write_dir};
use lora_core::weight_errors;
use lora_models::ExportOptions;
use lora_models::checkpoint::ExportDType;
use lora_models::classifier::{Classifier, ClassifierOptions};
use lora_models::gpt2::{Gpt2LmHead, Gpt2Options};
use lora_models::prefix::PREFIX_DIR;
use std::fmt;
use std::path::{Path, PathBuf};

/// Options of `lora merge`.
#[derive(Args, Clone, Debug, Default)]
pub struct MergeOptions {
    /// Directory of the base model.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// PEFT adapter to merge into it [default: none, the model is converted].
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Refuse an adapter that is known to be of another base, where otherwise a line warns.
    #[arg(long)]
    pub strict_base: bool,
    /// Directory to write: config.json, model.safetensors and the tokenizer, as transformers loads them.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Element type of the weights: f32, f16 or bf16; the sum is taken in f32.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parse_dtype)]
    pub dtype: ExportDType,
    /// Whether to check what was written.
    #[command(flatten)]
    pub verify: VerifyOptions,
    /// Replace the output directory if it is there.
    #[arg(long)]
    pub overwrite: bool,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
    /// Seed of the random tokens that --verify compares on; a merge itself has nothing random.
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

/// What a merge wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeSummary {
    /// Number of modules whose weights have an adapter in them.
    pub modules: usize,
    /// Number of values that were written.
    pub parameters: u64,
    /// Their size in bytes.
    pub tensor_bytes: u64,
    /// The directory.
    pub output: PathBuf,
    /// The prefix of the adapter, beside the weights.
    pub prefix: Option<PathBuf>,
    /// How it compares with the base and its adapter, where that was asked for.
    pub check: Option<MergeCheck>,
}

impl fmt::Display for MergeSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "merged {} modules; wrote {} parameters ({:.1} MB) to {}",
            self.modules,
            self.parameters,
            self.tensor_bytes as f64 / 1e6,
            self.output.display()
        )?;
        if let Some(prefix) = &self.prefix {
            write!(f, "\n{PREFIX_NOTE}: {}", prefix.display())?;
        }
        match &self.check {
            None => Ok(()),
            Some(check) => write!(f, "\nverified: {check}"),
        }
    }
}

/// Merges.
///
/// # Errors
/// On bad files, a value that does not fit in the element type, or an output that is there already;
/// [`TrainError::MergeDiffers`] where it was to be verified and does not pass: nothing is written then.
pub fn merge(options: &MergeOptions) -> Result<MergeSummary, TrainError> {
    let dir = &model_directory(&options.model)?;
    let device = device::open(options.device)?;
    match default_task(dir, options.adapter.as_deref())? {
        TaskName::CausalLm => {
            merge_model::<Gpt2LmHead>(options, dir, &Gpt2Options::default(), &device)
        }
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
) -> Result<MergeSummary, TrainError> {
    let tolerance = options.verify.tolerance(options.dtype)?;
    let mut loaded = load_trained::<M>(dir, options.adapter.as_deref(), how, device)?;
    check_base(
        options.adapter.as_deref(),
        loaded.adapter.as_ref(),
        options.strict_base,
        &Screen::detect(),
    )?;
    let probe = match options.verify.verify {
        true => Some(options.verify.probe(&loaded.base, options.seed)?),
        false => None,
    };
    refuse_alone(&loaded.model, loaded.adapter.as_ref())?;
    // What is merged and verified is the rest.
    let with_prefix = loaded.model.prefix().map(|_| loaded.model.clone());
    loaded.model.take_prefix();
    let overwrite = match options.overwrite {
        true => Overwrite::Replace,
        false => Overwrite::Refuse,
    };
    let export = ExportOptions {
        dtype: options.dtype,
        base_dir: Some(dir.into()),
    };
    let mut written = None;
    // What does not pass never gets its name.
    write_dir(&options.output, overwrite, |fresh| {
        let merged = lora_core::merge(loaded.model.clone()).into_module();
        let report = merged.export(fresh, &export, Overwrite::Refuse)?;
        drop(merged);
        if let Some(model) = &with_prefix {
            save_beside(model, fresh, &options.output)?;
        }
        let check = match &probe {
            None => None,
            Some(probe) => Some(verify::<M>(
                &loaded,
                fresh,
                how,
                probe,
                options.dtype,
                tolerance,
                device,
            )?),
        };
        written = Some((report, check));
        Ok::<(), TrainError>(())
    })?;
    let (report, check) = written.ok_or_else(|| TrainError::Burn {
        message: "nothing was written".into(),
    })?;
    Ok(MergeSummary {
        modules: loaded.adapter.map_or(0, |report| report.modules.len()),
        parameters: report.parameters,
        tensor_bytes: report.tensor_bytes,
        prefix: with_prefix.map(|_| options.output.join(PREFIX_DIR)),
        output: options.output.clone(),
        check,
    })
}

/// Reads what was written and compares it with the model that it was made of.
fn verify<M: Opens>(
    loaded: &Loaded<M>,
    written: &Path,
    how: &M::How,
    probe: &Probe,
    dtype: ExportDType,
    tolerance: f64,
    device: &Device,
) -> Result<MergeCheck, TrainError> {
    let (mut merged, _) = M::open(written, &M::trained(how), device)?;
    let mut check = compare(&loaded.model, &merged, probe, dtype, tolerance, device)?;
    if let Some(report) = &loaded.adapter {
        // With the parameters that the adapter asked for, such as a head apart from the embedding.
        merged = merged.prepare(&report.config)?;
        check.weights = weight_errors(&loaded.model, report, &merged)?;
    }
    match check.passed() {
        true => Ok(check),
        false => Err(TrainError::MergeDiffers {
            relative: check.relative,
            tolerance,
            measured: check.to_string(),
        }),
    }
}
