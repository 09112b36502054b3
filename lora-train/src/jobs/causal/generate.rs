//! Generating text.

use super::judge::generation_config;
use crate::TrainError;
use crate::data::{Lines, Origin, is_blank};
use crate::device::{self, DeviceName};
use crate::jobs::adapters::{AdapterOptions, AdapterSelection, check};
use crate::jobs::open::{load_base, quantize_config};
use crate::progress::Screen;
use clap::Args;
use lora_core::Quantization;
use lora_core::named::NamedAdapters;
use lora_models::generate::{BeamSearch, GenerationConfig, Sampling, Strategy};
use lora_models::generate_each;
use lora_models::gpt2::{Gpt2LmHead, Gpt2Options};
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
    /// Keep the frozen weights of the model in 4 or 8 bits: nf4 or int8 [default: in floats].
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// Text to go on from; may be given several times.
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// File with a prompt on each line, or `-` for standard input; of JSON Lines (`.jsonl`) the key `prompt`, and `adapter` with named adapters.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Prompts in a forward pass.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// How to choose tokens.
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// Print one JSON object a prompt: `prompt`, `text`, `tokens`, `finished`.
    #[arg(long)]
    pub json: bool,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
}

/// How tokens are chosen.
#[derive(Args, Clone, Debug, Default)]
pub struct SamplingOptions {
    /// Draw tokens at random, from probabilities sharpened (below 1) or flattened (above 1) [default: the likeliest token].
    #[arg(long, value_name = "X", conflicts_with = "beams")]
    pub temperature: Option<f64>,
    /// Draw from this many likeliest tokens only.
    #[arg(long, value_name = "N", conflicts_with = "beams")]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that make up this probability only, in (0, 1].
    #[arg(long, value_name = "P", conflicts_with = "beams")]
    pub top_p: Option<f64>,
    /// Seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// Beams of a beam search.
    #[arg(long, value_name = "N")]
    pub beams: Option<usize>,
    /// Exponent of the length that a beam's score is divided by.
    #[arg(long, value_name = "X", requires = "beams")]
    pub length_penalty: Option<f64>,
    /// Never repeat a sequence of this many tokens; 0 allows it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub no_repeat_ngram: usize,
}

impl SamplingOptions {
    /// The configuration for a model with these defaults.
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

/// A continuation.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Continuation {
    /// The prompt.
    pub prompt: String,
    /// What follows it.
    pub text: String,
    /// Number of tokens generated.
    pub tokens: usize,
    /// Whether the model ended the text, rather than the limit.
    pub finished: bool,
}

/// Generates for all prompts.
///
/// # Errors
/// On bad files, no prompt, an empty one, or one that leaves no room.
pub fn generate(
    options: &GenerateOptions,
    screen: &Screen,
) -> Result<Vec<Continuation>, TrainError> {
    let wanted = options
        .adapters
        .selection_with(options.use_adapter.as_deref())?;
    let prompts = prompts(options)?;
    let device = device::open(options.device)?;
    let how = Gpt2Options {
        quantize: quantize_config(options.quantize, &wanted.dirs(), &[])?,
    };
    let loaded = load_base::<Gpt2LmHead>(&options.model, wanted.one(), &how, &device)?;
    options
        .adapters
        .check_base(wanted.one(), loaded.adapter.as_ref(), screen)?;
    let base = loaded.base;
    let model = match &wanted {
        AdapterSelection::Named(adapters) => {
            let set = options.adapters.put(loaded.model, adapters, screen)?;
            let mut all = prompts.iter();
            all.try_for_each(|prompt| check(&set, prompt.adapter.as_deref(), &prompt.origin))?;
            Model::Named(set)
        }
        _ => match prompts.iter().find(|prompt| prompt.adapter.is_some()) {
            None => Model::One(loaded.model),
            Some(Prompt { origin, .. }) => {
                let message =
                    "names an adapter, and none was given by name, as `--adapter NAME=DIR`";
                return Err(TrainError::data_line(origin.path(), origin.line(), message));
            }
        },
    };
    let config = generation_config(&base, options.max_new_tokens, 1);
    let config = options.sampling.apply(config);
    let mut bar = screen.bar("generate", prompts.len());
    let mut continuations = Vec::with_capacity(prompts.len());
    for chunk in prompts.chunks(options.batch_size.max(1)) {
        let mut tokens = Vec::with_capacity(chunk.len());
        for prompt in chunk {
            tokens.push(base.tokenizer.encode(&prompt.text)?);
        }
        let generated = match &model {
            Model::One(model) => lora_models::generate::generate(model, &tokens, &config, &device)?,
            Model::Named(set) => {
                let names: Vec<_> = chunk
                    .iter()
                    .map(|prompt| prompt.adapter.as_deref())
                    .collect();
                generate_each(set, &names, &tokens, &config, &device, |_, _| {})?
            }
        };
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

/// The model, alone or with one adapter, or with several by name.
#[allow(clippy::large_enum_variant)] // There is one.
enum Model {
    One(Gpt2LmHead),
    Named(NamedAdapters<Gpt2LmHead>),
}

/// What is to be gone on from.
struct Prompt {
    text: String,
    adapter: Option<String>,
    origin: Origin,
}

/// A line of JSON Lines.
#[derive(Deserialize)]
struct PromptLine {
    prompt: String,
    adapter: Option<String>,
}

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
        let mut lines = match path.to_str() {
            Some("-") => Lines::from_reader(std::io::stdin().lock(), Path::new("standard input")),
            _ => Lines::open(path)?,
        };
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_json = matches!(extension, Some("jsonl" | "ndjson"));
        while let Some((line, origin)) = lines.next_line()? {
            if is_blank(line) {
                continue;
            }
            let line = match is_json {
                false => PromptLine {
                    prompt: line.to_string(),
                    adapter: None,
                },
                true => serde_json::from_str(line).map_err(|error| {
                    let message = format!("expected an object with `prompt`: {error}");
                    TrainError::data_line(origin.path(), origin.line(), message)
                })?,
            };
            prompts.push(Prompt {
                text: line.prompt,
                adapter: line.adapter.or_else(|| options.use_adapter.clone()),
                origin,
            });
        }
    }
    match prompts.is_empty() {
        true => Err(TrainError::config(
            "prompt",
            "is missing: give --prompt or --prompts",
        )),
        false => Ok(prompts),
    }
}
