//! Merging an adapter into its model, or converting a model.

use super::adapters::{AdapterArg, with_foreign};
use super::beside::{BESIDE_NOTE, refuse_alone, save_beside};
use super::foreign::ForeignOptions;
use super::inputs::Inputs;
use super::labelled::head_kind;
use super::session::Session;
use super::sources::Sources;
use super::verify::{MergeCheck, Probe, VerifyOptions, compare};
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::progress::Screen;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use lora_core::files::{Overwrite, check_dir, write_dir};
use lora_core::{BaseDType, weight_errors};
use lora_models::checkpoint::{ExportDType, ExportReport};
use lora_models::classifier::ClassifierOptions;
use lora_models::formats::gguf::{self, ElementType};
use lora_models::{ExportOptions, LoadOptions, Pretrained, dispatch};
use serde_json::{Map, Value};
use std::fmt;
use std::path::{Path, PathBuf};

/// Options of `lora merge`.
#[derive(Args, Clone, Debug, Default)]
pub struct MergeOptions {
    /// Directory of the base model.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// PEFT adapter to merge, or a file of loralib (microsoft/LoRA) beside its --alpha [default: none, the model is converted].
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Values that a file of loralib lacks.
    #[command(flatten)]
    pub foreign: ForeignOptions,
    /// Fail, instead of warning, if the adapter was trained on another base model.
    #[arg(long)]
    pub strict_base: bool,
    /// Directory to write: config.json, model.safetensors and the tokenizer, as transformers loads them; or model.gguf.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Format to write.
    #[arg(long, value_name = "FORMAT", default_value = "transformers")]
    pub to: ModelFormat,
    /// Float type of the base's weights in memory until they are merged: f32, f16, bf16, or auto for that of the checkpoint, with which the result is the same [default: f32].
    #[arg(long, value_name = "TYPE")]
    pub base_dtype: Option<BaseDType>,
    /// Element type of the weights: f32, f16 or bf16, and `q8_0` in gguf; the sum is taken in f32.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parse_dtype)]
    pub dtype: ElementType,
    /// Options for checking the written model.
    #[command(flatten)]
    pub verify: VerifyOptions,
    /// Replace the output directory if it exists.
    #[arg(long)]
    pub overwrite: bool,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
    /// Seed of the random tokens that --verify compares on; a merge itself has nothing random.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

/// Format of a written model, by its name on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ModelFormat {
    /// A directory as transformers loads it.
    #[default]
    Transformers,
    /// A GGUF file for llama.cpp, with its tokenizer, beside a Modelfile for Ollama.
    Gguf,
}

fn parse_dtype(text: &str) -> Result<ElementType, String> {
    let float = match text.to_ascii_lowercase().as_str() {
        "f32" | "float32" => ExportDType::F32,
        "f16" | "float16" => ExportDType::F16,
        "bf16" | "bfloat16" => ExportDType::BF16,
        "q8_0" => return Ok(ElementType::Q8_0),
        _ => return Err("expected f32, f16, bf16 or q8_0".into()),
    };
    Ok(float.into())
}

/// Outcome of a merge.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeSummary {
    /// Number of merged modules.
    pub modules: usize,
    /// Number of written parameters.
    pub parameters: u64,
    /// Size of the parameters in bytes.
    pub tensor_bytes: u64,
    /// Directory of the merged model.
    pub output: PathBuf,
    /// Directories of the adapter's virtual tokens and adapter layers, beside the weights.
    pub beside: Vec<PathBuf>,
    /// Comparison with the base and its adapter, with `--verify`.
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
        for path in &self.beside {
            write!(f, "\n{BESIDE_NOTE}: {}", path.display())?;
        }
        match &self.check {
            None => Ok(()),
            Some(check) => write!(f, "\nverified: {check}"),
        }
    }
}

/// Merges an adapter into its model and writes the result.
///
/// # Errors
/// If a file is malformed, a value exceeds the element type, or the output exists; [`TrainError::MergeDiffers`] if the
/// verification fails, in which case nothing is written.
pub fn merge(options: &MergeOptions) -> Result<MergeSummary, TrainError> {
    // Before gigabytes are read and added.
    options.verify.tolerance(options.dtype)?;
    if let (ModelFormat::Transformers, ElementType::Q8_0) = (options.to, options.dtype) {
        let message = "is q8_0, which belongs to `--to gguf`; expected f32, f16 or bf16";
        return Err(TrainError::config("dtype", message));
    }
    let read = options.adapter.iter().chain([&options.model]);
    Inputs::of(read.map(PathBuf::as_path)).refuse("output", &options.output)?;
    check_dir(&options.output, Overwrite::from(options.overwrite))?;
    let adapter = options.adapter.clone().map(AdapterArg::from);
    let adapter = with_foreign(adapter.as_slice(), &options.foreign)?;
    let sources = Sources::open(&options.model, &adapter)?;
    let device = device::open(options.device)?;
    if options.base_dtype == Some(BaseDType::Int8) {
        let message = "rounds the embeddings and output layers that the merged model has; choose f32, f16, bf16 or auto";
        return Err(TrainError::config("base_dtype", message));
    }
    let floats = sources.floats(options.base_dtype, None, &[])?;
    dispatch!(sources.model.config(),
        causal M(config) => {
            let load = LoadOptions::default().with_floats(floats);
            merge_model::<M>(options, &sources, config, &load, &device)
        },
        encoder M(config) => {
            let (_, labels) = sources.head(sources.first())?;
            let load = ClassifierOptions {
                head: head_kind(sources.task()?),
                labels: Some(labels),
                floats,
                ..ClassifierOptions::default()
            };
            merge_model::<M>(options, &sources, config, &load, &device)
        },
    )
}

fn merge_model<M: Pretrained>(
    options: &MergeOptions,
    sources: &Sources,
    config: &M::Config,
    load: &M::Options,
    device: &Device,
) -> Result<MergeSummary, TrainError> {
    let tolerance = options.verify.tolerance(options.dtype)?;
    let (dir, adapter) = (&sources.model, sources.one());
    // The texts are read before the weights.
    let probe = if options.verify.verify {
        let (_, base) = Session::<M>::outline(dir, config, adapter, load, device)?;
        Some(options.verify.probe(&base, options.seed)?)
    } else {
        None
    };
    let session = Session::<M>::open(dir, config, adapter, load, device)?;
    let mut loaded = session.check_trained()?;
    let screen = Screen::detect();
    sources.check_base(loaded.adapter.as_ref(), options.strict_base, &screen)?;
    if let Some(report) = &loaded.adapter {
        refuse_alone(&loaded.model, report, "adapter")?;
    }
    // Virtual tokens and adapter layers are neither merged nor verified.
    let whole = Some(&loaded.model).filter(|model| !model.added().is_empty());
    let whole = whole.cloned();
    loaded.model.take_added();
    let overwrite = Overwrite::from(options.overwrite);
    let export = loaded.base.export_options();
    let (mut result, mut beside) = (None, Vec::new());
    // A model that fails the check never appears under its name.
    write_dir(&options.output, overwrite, |fresh| {
        let merged = lora_core::merge(loaded.model.clone()).into_module();
        let written = Written::new(&merged, fresh, options, export)?;
        drop(merged);
        if let Some(model) = &whole {
            beside = save_beside(model, fresh, &options.output)?;
        }
        let check = |probe| {
            let merged = written.read::<M>(fresh, load, device)?;
            verify(&loaded, merged, probe, options.dtype, tolerance, device)
        };
        result = Some((
            written.report.clone(),
            probe.as_ref().map(check).transpose()?,
        ));
        // All weights have been read from the pages of their files.
        loaded.base.weight_files.check()?;
        Ok::<(), TrainError>(())
    })?;
    let (report, check) = result.ok_or_else(|| TrainError::burn("nothing was written"))?;
    Ok(MergeSummary {
        modules: loaded.adapter.map_or(0, |report| report.modules.len()),
        parameters: report.parameters,
        tensor_bytes: report.tensor_bytes,
        beside,
        output: options.output.clone(),
        check,
    })
}

/// Model that was written.
struct Written {
    report: ExportReport,
    /// Object of the `config.json` of a GGUF file, which does not hold it.
    config: Option<Map<String, Value>>,
}

impl Written {
    /// Writes a model without adapters.
    fn new<M: Pretrained>(
        model: &M,
        dir: &Path,
        options: &MergeOptions,
        export: ExportOptions,
    ) -> Result<Self, TrainError> {
        let dtype = match (options.to, options.dtype) {
            (ModelFormat::Transformers, ElementType::Float(dtype)) => dtype,
            (_, dtype) => {
                let written = gguf::export_model(model, dir, dtype, &export, Overwrite::Refuse)?;
                let (report, config) = written;
                return Ok(Self {
                    report,
                    config: Some(config),
                });
            }
        };
        let export = ExportOptions { dtype, ..export };
        let report = model.export(dir, &export, Overwrite::Refuse)?;
        Ok(Self {
            report,
            config: None,
        })
    }

    /// Reads it.
    fn read<M: Pretrained>(
        &self,
        dir: &Path,
        load: &M::Options,
        device: &Device,
    ) -> Result<M, TrainError> {
        let options = M::trained_options(load);
        Ok(match &self.config {
            None => M::load(dir, &options, device)?.0,
            Some(config) => {
                gguf::read_model(&dir.join(gguf::MODEL_FILE), config, &options, device)?
            }
        })
    }
}

/// Compares the written model with the model that it was merged from.
fn verify<M: Pretrained>(
    loaded: &Session<M>,
    mut merged: M,
    probe: &Probe,
    dtype: ElementType,
    tolerance: f64,
    device: &Device,
) -> Result<MergeCheck, TrainError> {
    let mut check = compare(&loaded.model, &merged, probe, dtype, tolerance, device)?;
    if let Some(report) = &loaded.adapter {
        // The adapter may have asked for parameters such as a head apart from the embedding.
        merged = merged.prepare(&report.config)?;
        check.weights = weight_errors(&loaded.model, report, &merged)?;
    }
    if check.passed() {
        return Ok(check);
    }
    Err(TrainError::MergeDiffers {
        relative: check.relative,
        tolerance,
        measured: check.to_string(),
    })
}
