//! Text generation.

use super::choice::{SamplingOptions, Unsupported, generation_config};
use crate::TrainError;
use crate::data::{Lines, Origin};
use crate::device::{self, DeviceName};
use crate::jobs::adapters::AdapterOptions;
use crate::jobs::assignment::check;
use crate::jobs::batches::pad_multiple;
use crate::jobs::inputs::Inputs;
use crate::jobs::results::{OutputOptions, ResultFile};
use crate::jobs::run_key::RunKey;
use crate::jobs::session::Session;
use crate::jobs::sources::Sources;
use crate::options::Precision;
use crate::progress::Screen;
use clap::Args;
use lora_core::ops::with_mixed_precision;
use lora_core::{BaseDType, Quantization};
use lora_models::generate::Generator;
use lora_models::{CausalLm, LoadOptions, ModelAdapters, dispatch};
use serde::Deserialize;
use serde_json::{Map, json};
use std::path::{Path, PathBuf};

/// Options of `lora generate`.
#[derive(Args, Clone, Debug, Default)]
pub struct GenerateOptions {
    /// Directory of the model.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Adapters on it.
    #[command(flatten)]
    pub adapters: AdapterOptions,
    /// With named adapters: the one for prompts that name none [default: the model alone].
    #[arg(long = "use", value_name = "NAME")]
    pub use_adapter: Option<String>,
    /// Keep the frozen weights of the model in 4 or 8 bits: nf4 or int8 [default: not quantized].
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// Float type of the frozen weights in memory: f32, f16, bf16, or auto for that of the checkpoint, or int8 for embeddings and output layers alone; everything is computed in f32 [default: f32].
    #[arg(long, value_name = "TYPE")]
    pub base_dtype: Option<BaseDType>,
    /// Precision of products with frozen weights: f32, or mixed on GPUs [default: f32].
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<Precision>,
    /// Text to continue; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// File with a prompt on each line, or `-` for standard input; JSON Lines (`.jsonl`) have the key `prompt`, and `adapter` with named adapters.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Maximum number of tokens to generate [default: the model's, else 64].
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Number of prompts in a forward pass.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// Pad the prompts of a batch to a multiple of N tokens [default: 64 on GPUs, 16 on software adapters, 1 on CPUs].
    #[arg(long, value_name = "N")]
    pub pad_to_multiple_of: Option<usize>,
    /// Choice of tokens.
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// File of the results.
    #[command(flatten)]
    pub output: OutputOptions,
    /// Print one JSON object per prompt: `prompt`, `text`, `tokens`, `finished`.
    #[arg(long)]
    pub json: bool,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
}

/// Continuation of a prompt.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Continuation {
    /// Prompt.
    pub prompt: String,
    /// Generated text.
    pub text: String,
    /// Number of generated tokens.
    pub tokens: usize,
    /// True if the text ended with a stop token, false if it reached the limit.
    pub finished: bool,
}

/// Generates a continuation of each prompt, and hands each to `result` as soon as its batch is there: those of `--output`
/// are written to the file instead.
///
/// # Errors
/// If files are malformed, there is no prompt, or a prompt is empty or leaves no room for a text; those of `result`.
pub fn generate(
    options: &GenerateOptions,
    screen: &Screen,
    result: &mut dyn FnMut(Continuation) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let default = options.use_adapter.as_deref();
    let selection = options.adapters.selection_with(default)?;
    let data = [options.prompts.as_ref()];
    let inputs = Inputs::new(&options.model, &options.adapters, data);
    options.output.check(&inputs)?;
    let prompts = prompts(options)?;
    let sources = Sources::open(&options.model, &selection)?;
    dispatch!(sources.model.config(),
        causal M(config) => generate_with::<M>(options, &sources, config, &prompts, screen, result),
        encoder M(_) => Err(super::no_language_model(&sources)),
    )
}

/// Generates with a model of a known type.
fn generate_with<M: CausalLm>(
    options: &GenerateOptions,
    sources: &Sources,
    config: &M::Config,
    prompts: &[Prompt],
    screen: &Screen,
    result: &mut dyn FnMut(Continuation) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let size = options.batch_size.max(1);
    let device = device::open(options.device)?;
    let quantize = sources.quantize(options.quantize, &[])?;
    let mixed = options.precision.unwrap_or_default().half_on(&device)?;
    let floats = sources.floats(options.base_dtype, mixed, &[])?;
    let load = LoadOptions::default()
        .with_quantize(quantize)
        .with_floats(floats);
    let (dir, adapter) = (&sources.model, sources.one());
    // Prompts and options are checked before weights are read, and all prompts before hours go into some.
    let (outline, mut base) = Session::<M>::outline(dir, config, adapter, &load, &device)?;
    base.pad_to_multiple_of = pad_multiple(options.pad_to_multiple_of, &device)?;
    if let Some(line) = base.tokens_around() {
        screen.line(&line);
    }
    let (new, refuse) = (options.max_new_tokens, Unsupported::Refuse);
    let generation = generation_config(&base, &options.sampling, new, refuse, screen)?;
    let mut tokens = Vec::with_capacity(prompts.len());
    for Prompt { text, origin, .. } in prompts {
        let prompt = base.tokenizer.encode_prompt(text)?;
        generation
            .check_prompt(&outline, &prompt)
            .map_err(|message| origin.error(format!("the prompt {message}")))?;
        tokens.push(prompt);
    }
    let largest = |batch: &[Vec<u32>]| batch.iter().map(Vec::len).max().unwrap_or(0);
    for batch in tokens.chunks(size) {
        base.limit
            .check("batch_size", [batch.len(), largest(batch)])?;
        base.limit
            .check_logits("batch_size", batch.len().saturating_mul(generation.rows()))?;
    }
    let session = Session::<M>::open(dir, config, adapter, &load, &device)?;
    let strict = options.adapters.strict_base;
    sources.check_base(session.adapter.as_ref(), strict, screen)?;
    let model = session.model;
    let mut named = None;
    if sources.is_named() {
        let set = options.adapters.put(model.clone(), sources, screen)?;
        let mut all = prompts.iter();
        all.try_for_each(|prompt| check(&set, prompt.adapter.as_deref(), &prompt.origin))?;
        named = Some(set);
    } else if let Some(Prompt { origin, .. }) = prompts.iter().find(|p| p.adapter.is_some()) {
        let message = "names an adapter, but no adapter was given by name (`--adapter NAME=DIR`)";
        return Err(origin.error(message));
    }
    let chosen: Vec<_> = prompts.iter().map(|prompt| &prompt.adapter).collect();
    let key = || {
        let key = RunKey::new(sources)?
            .with("device", &device::describe(&device))
            .with("quantize", &options.quantize)
            .with("base_dtype", &options.base_dtype.unwrap_or_default())
            .with("precision", &mixed)
            .with("batch_size", &size);
        Ok(key
            .with("adapters", &chosen)
            .with("generation", &generation)
            .with("tokens", &tokens))
    };
    let inputs: Vec<_> = prompts.iter().map(|prompt| json!(prompt.text)).collect();
    let mut file = ResultFile::open(&options.output, "prompt", &inputs, key)?;
    // A batch that was written in part is computed again as it was.
    let start = file.as_ref().map_or(0, ResultFile::done) / size * size;
    let bar = screen.bar("generate", prompts.len());
    let mut bar = bar.for_device(&device);
    for first in (start..prompts.len()).step_by(size) {
        let batch = first..prompts.len().min(first + size);
        let (chunk, tokens) = (&prompts[batch.clone()], &tokens[batch.clone()]);
        let config = generation.clone();
        let generated = with_mixed_precision(mixed, || match &named {
            None => {
                let generator = Generator::new(&model, config, &device);
                generator.with_first(first).generate(tokens)
            }
            Some(set) => {
                let names = chunk.iter().map(|prompt| prompt.adapter.as_deref());
                let model = set.for_prompts(&names.collect::<Vec<_>>())?;
                let generator = Generator::new(&model, config, &device);
                generator.with_first(first).generate(tokens)
            }
        })?;
        for ((index, prompt), output) in batch.clone().zip(chunk).zip(generated) {
            let continuation = Continuation {
                prompt: prompt.text.clone(),
                text: base.tokenizer.decode(&output.tokens, true)?,
                tokens: output.tokens.len(),
                finished: output.finished_by_stop,
            };
            match &mut file {
                Some(file) => file.add(index, continuation.object())?,
                None => result(continuation)?,
            }
        }
        bar.set(batch.end);
    }
    bar.finish();
    if let Some(file) = file {
        let (done, path) = (file.done(), file.path().display());
        screen.line(&format!("{path}: {done} texts"));
    }
    Ok(())
}

impl Continuation {
    /// Returns the object of a line of JSON Lines.
    fn object(&self) -> Map<String, serde_json::Value> {
        [
            ("prompt", json!(self.prompt)),
            ("text", json!(self.text)),
            ("tokens", json!(self.tokens)),
            ("finished", json!(self.finished)),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into_iter()
        .collect()
    }
}

/// Prompt to continue.
struct Prompt {
    text: String,
    adapter: Option<String>,
    origin: Origin,
}

/// Line of JSON Lines.
#[derive(Deserialize)]
struct PromptLine {
    prompt: String,
    adapter: Option<String>,
}

/// Reads the prompts of the options and their file.
fn prompts(options: &GenerateOptions) -> Result<Vec<Prompt>, TrainError> {
    let mut prompts = Vec::new();
    for (index, text) in options.prompt.iter().enumerate() {
        prompts.push(Prompt {
            text: text.clone(),
            adapter: options.use_adapter.clone(),
            origin: Origin::new(Path::new("--prompt"), index + 1),
        });
    }
    if let Some(path) = &options.prompts {
        let mut lines = Lines::open_input(path)?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_json = matches!(extension, Some("jsonl" | "ndjson"));
        while let Some((line, origin)) = lines.next_text()? {
            let (text, adapter) = if is_json {
                let line: PromptLine = serde_json::from_str(&line).map_err(|error| {
                    origin.error(format!("expected an object with `prompt`: {error}"))
                })?;
                (line.prompt, line.adapter)
            } else {
                (line, None)
            };
            prompts.push(Prompt {
                text,
                adapter: adapter.or_else(|| options.use_adapter.clone()),
                origin,
            });
        }
    }
    if prompts.is_empty() {
        let message = "is missing: give --prompt or --prompts";
        return Err(TrainError::config("prompt", message));
    }
    Ok(prompts)
}
