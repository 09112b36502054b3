//! Text generation.

use super::texts::generation_config;
use crate::TrainError;
use crate::data::{Lines, Origin};
use crate::device::{self, DeviceName};
use crate::jobs::adapters::AdapterOptions;
use crate::jobs::assignment::check;
use crate::jobs::batches::pad_multiple;
use crate::jobs::session::Session;
use crate::jobs::sources::Sources;
use crate::options::Precision;
use crate::progress::Screen;
use clap::Args;
use lora_core::ops::with_mixed_precision;
use lora_core::{BaseDType, Quantization};
use lora_models::generate::{BeamSearch, GenerationConfig, Generator, Sampling, Strategy};
use lora_models::{CausalLm, LoadOptions, ModelAdapters, dispatch};
use serde::Deserialize;
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
    /// Float type of the frozen weights in memory: f32, f16, bf16, or auto for that of the checkpoint; everything is computed in f32 [default: f32].
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
    /// Maximum number of tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Number of prompts in a forward pass.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// Pad the prompts of a batch to a multiple of N tokens [default: 64 on GPUs, 16 on software adapters, 1 on CPUs].
    #[arg(long, value_name = "N")]
    pub pad_to_multiple_of: Option<usize>,
    /// Choice of tokens.
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// Print one JSON object per prompt: `prompt`, `text`, `tokens`, `finished`.
    #[arg(long)]
    pub json: bool,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
}

/// Options for the choice of tokens.
#[derive(Args, Clone, Debug, Default)]
pub struct SamplingOptions {
    /// Draw tokens at random, with probabilities sharpened (below 1) or flattened (above 1) [default: the most likely token].
    #[arg(long, value_name = "X", conflicts_with = "beams")]
    pub temperature: Option<f64>,
    /// Draw only from this many most likely tokens.
    #[arg(long, value_name = "N", conflicts_with = "beams")]
    pub top_k: Option<usize>,
    /// Draw only from the most likely tokens that have this probability together, in (0, 1].
    #[arg(long, value_name = "P", conflicts_with = "beams")]
    pub top_p: Option<f64>,
    /// Seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// Number of beams of a beam search.
    #[arg(long, value_name = "N")]
    pub beams: Option<usize>,
    /// Exponent of the length by which a beam's score is divided.
    #[arg(long, value_name = "X", requires = "beams")]
    pub length_penalty: Option<f64>,
    /// Length of the n-grams that may not repeat; 0 allows any repetition.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub no_repeat_ngram: usize,
}

impl SamplingOptions {
    /// Applies the options to a configuration.
    pub fn apply(&self, config: GenerationConfig) -> GenerationConfig {
        let config = config.with_no_repeat_ngram_size(self.no_repeat_ngram);
        if let Some(beams) = self.beams {
            let standard = BeamSearch::default();
            return config.with_strategy(Strategy::Beam(BeamSearch {
                beams,
                length_penalty: self.length_penalty.unwrap_or(standard.length_penalty),
                ..standard
            }));
        }
        if self.temperature.is_none() && self.top_k.is_none() && self.top_p.is_none() {
            return config;
        }
        let standard = Sampling::default();
        config.with_strategy(Strategy::Sample(Sampling {
            temperature: self.temperature.unwrap_or(standard.temperature),
            top_k: self.top_k.or(standard.top_k),
            top_p: self.top_p.unwrap_or(standard.top_p),
            seed: self.seed,
        }))
    }
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

/// Generates a continuation of each prompt.
///
/// # Errors
/// If files are malformed, there is no prompt, or a prompt is empty or leaves no room for a text.
pub fn generate(
    options: &GenerateOptions,
    screen: &Screen,
) -> Result<Vec<Continuation>, TrainError> {
    let default = options.use_adapter.as_deref();
    let selection = options.adapters.selection_with(default)?;
    let prompts = prompts(options)?;
    let sources = Sources::open(&options.model, selection)?;
    dispatch!(sources.model.config(),
        causal M(config) => generate_with::<M>(options, &sources, config, &prompts, screen),
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
) -> Result<Vec<Continuation>, TrainError> {
    let device = device::open(options.device)?;
    let quantize = sources.quantize(options.quantize, &[])?;
    let mixed = options.precision.unwrap_or_default().half_on(&device)?;
    let floats = sources.floats(options.base_dtype, mixed, &[])?;
    let load = LoadOptions::default()
        .with_quantize(quantize)
        .with_floats(floats);
    let session = Session::<M>::open(&sources.model, config, sources.one(), &load, &device)?;
    let strict = options.adapters.strict_base;
    sources.check_base(session.adapter.as_ref(), strict, screen)?;
    let (model, mut base) = (session.model, session.base);
    base.pad_to_multiple_of = pad_multiple(options.pad_to_multiple_of, &device)?;
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
    let config = generation_config(&base, options.max_new_tokens, 1);
    let config = options.sampling.apply(config);
    let bar = screen.bar("generate", prompts.len());
    let mut bar = bar.for_device(&device);
    let mut continuations = Vec::with_capacity(prompts.len());
    for chunk in prompts.chunks(options.batch_size.max(1)) {
        let mut tokens = Vec::with_capacity(chunk.len());
        for prompt in chunk {
            tokens.push(base.tokenizer.encode(&prompt.text)?);
        }
        let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
        base.limit.check("batch_size", [tokens.len(), longest])?;
        base.limit.check_logits("batch_size", tokens.len())?;
        let config = config.clone();
        let generated = with_mixed_precision(mixed, || match &named {
            None => Generator::new(&model, config, &device).generate(&tokens),
            Some(set) => {
                let names = chunk.iter().map(|prompt| prompt.adapter.as_deref());
                let model = set.for_prompts(&names.collect::<Vec<_>>())?;
                Generator::new(&model, config, &device).generate(&tokens)
            }
        })?;
        for (prompt, output) in chunk.iter().zip(generated) {
            continuations.push(Continuation {
                prompt: prompt.text.clone(),
                text: base.tokenizer.decode(&output.tokens, true)?,
                tokens: output.tokens.len(),
                finished: output.finished_by_stop,
            });
        }
        bar.set(continuations.len());
    }
    bar.finish();
    Ok(continuations)
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
