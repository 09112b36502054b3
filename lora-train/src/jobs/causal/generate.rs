//! Text generation.

use super::choice::{
    ANSWER_TOKENS, NEW_TOKENS, SamplingOptions, Unsupported, generation_config_for,
};
use super::template::chat_template;
use crate::TrainError;
use crate::data::{Lines, Origin, read_conversation};
use crate::device::{self, DeviceName};
use crate::jobs::adapters::AdapterOptions;
use crate::jobs::assignment::check;
use crate::jobs::batches::pad_multiple;
use crate::jobs::evaluation::agree_with;
use crate::jobs::inputs::Inputs;
use crate::jobs::results::{OutputOptions, ResultFile};
use crate::jobs::run_key::RunKey;
use crate::jobs::session::Session;
use crate::jobs::sources::Sources;
use crate::options::{Precision, TemplateVariables};
use crate::progress::Screen;
use crate::trainer::ranks::{Alone, Ranks, gather_results};
use clap::Args;
use lora_core::ops::with_mixed_precision;
use lora_core::{BaseDType, Quantization};
use lora_models::chat::{Conversation, Message};
use lora_models::generate::Generator;
use lora_models::{CausalLm, LoadOptions, ModelAdapters, dispatch};
use serde::{Deserialize, Serialize};
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
    /// File with a prompt on each line, or `-` for standard input; JSON Lines (`.jsonl`) have the key `prompt`, with --chat also `messages` and `tools`, and `adapter` with named adapters.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Take each prompt as the message of a user, and answer it by the chat template of the model.
    #[arg(long)]
    pub chat: bool,
    /// With --chat: message of the system before each prompt.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    /// With --chat: chat template, in Jinja [default: the one that comes with the adapter or the model].
    #[arg(long, value_name = "FILE", requires = "chat")]
    pub chat_template: Option<PathBuf>,
    /// With --chat: variables of the chat template as a JSON object, such as `{"enable_thinking": false}`.
    #[arg(long, value_name = "JSON", requires = "chat")]
    pub chat_template_kwargs: Option<TemplateVariables>,
    /// Maximum number of tokens to generate [default: the model's, else 64, and 512 with --chat].
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    generate_with(&Alone, options, screen, result)
}

/// Generates a continuation of each prompt together with other ranks, which share the batches: each computes one at a time. The first
/// rank alone gets the continuations, in the order of the prompts, and writes the file.
///
/// # Errors
/// As [`generate`], and [`TrainError::Rank`] if another rank differs or has ended.
pub fn generate_with(
    ranks: &dyn Ranks,
    options: &GenerateOptions,
    screen: &Screen,
    result: &mut dyn FnMut(Continuation) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let quiet = &Screen::quiet();
    let screen = if ranks.is_first() { screen } else { quiet };
    let default = options.use_adapter.as_deref();
    let selection = options.adapters.selection_with(default)?;
    let data = [options.prompts.as_ref()];
    let inputs = Inputs::new(&options.model, &options.adapters, data);
    if ranks.is_first() {
        options.output.check(&inputs)?;
    }
    let prompts = prompts(options)?;
    let sources = Sources::open(&options.model, &selection)?;
    dispatch!(sources.model.config(),
        causal M(config) => continued::<M>(ranks, options, (&sources, config), &prompts, screen, result),
        encoder M(_) => Err(super::no_language_model(&sources)),
    )
}

/// Generates with a model of a known type.
fn continued<M: CausalLm>(
    ranks: &dyn Ranks,
    options: &GenerateOptions,
    (sources, config): (&Sources, &M::Config),
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
    if let Some(line) = base.tokens_around().filter(|_| !options.chat) {
        screen.line(&line);
    }
    let template = if options.chat {
        let (given, variables) = (&options.chat_template, &options.chat_template_kwargs);
        Some(chat_template(&base, given.as_deref(), variables.as_ref())?)
    } else {
        None
    };
    let usual = if options.chat {
        ANSWER_TOKENS
    } else {
        NEW_TOKENS
    };
    let (new, refuse) = ((options.max_new_tokens, usual), Unsupported::Refuse);
    let mut generation = generation_config_for(&base, &options.sampling, new, refuse, screen)?;
    let mut tokens = Vec::with_capacity(prompts.len());
    for Prompt {
        text, origin, chat, ..
    } in prompts
    {
        let prompt = match (&template, chat) {
            (Some(template), Some(chat)) => {
                let text = template.prompt(chat);
                let text = text.map_err(|error| origin.error(error.to_string()))?;
                base.tokenizer.encode(&text)?
            }
            _ => base.tokenizer.encode_prompt(text)?,
        };
        tokens.push(prompt);
    }
    if options.chat && options.max_new_tokens.is_none() {
        // The usual length of an answer may be more than a small model has room for.
        let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
        let room = outline.max_positions().saturating_sub(longest);
        generation.max_new_tokens = generation.max_new_tokens.min(room.max(1));
    }
    for (prompt, Prompt { origin, .. }) in tokens.iter().zip(prompts) {
        generation
            .check_prompt(&outline, prompt)
            .map_err(|message| origin.error(format!("the prompt {message}")))?;
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
    agree_with(ranks, &session.base.weight_files, || {
        let options = format!("batch_size = {size}, {generation:?}");
        let prompts = RunKey::default().with("tokens", &tokens).finish();
        vec![("set of options", options), ("set of prompts", prompts)]
    })?;
    let inputs: Vec<_> = prompts.iter().map(|prompt| json!(prompt.text)).collect();
    let (mut file, done) = ResultFile::open_at(ranks, &options.output, "prompt", &inputs, key)?;
    // A batch that was written in part is computed again as it was.
    let start = done / size * size;
    let bar = screen.bar("generate", prompts.len());
    let mut bar = bar.for_device(&device);
    // In a round, each rank computes a batch.
    let round = size * ranks.size();
    for start in (start..prompts.len()).step_by(round) {
        let first = prompts.len().min(start + ranks.rank() * size);
        let batch = first..prompts.len().min(first + size);
        let (chunk, tokens) = (&prompts[batch.clone()], &tokens[batch]);
        let config = generation.clone();
        let generated = with_mixed_precision(mixed, || match &named {
            _ if tokens.is_empty() => Ok(Vec::new()),
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
        let own = chunk.iter().zip(generated).map(|(prompt, output)| {
            Ok(Continuation {
                prompt: prompt.text.clone(),
                text: base.tokenizer.decode(&output.tokens, true)?,
                tokens: output.tokens.len(),
                finished: output.finished_by_stop,
            })
        });
        let own = own.collect::<Result<Vec<_>, TrainError>>()?;
        let continuations = gather_results(ranks, own)?;
        for (index, continuation) in (start..).zip(continuations) {
            match &mut file {
                _ if !ranks.is_first() => {}
                Some(file) => file.add(index, continuation.object())?,
                None => result(continuation)?,
            }
        }
        bar.set(prompts.len().min(start + round));
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
    /// Text, or last message of a conversation.
    text: String,
    chat: Option<Conversation>,
    adapter: Option<String>,
    origin: Origin,
}

/// Line of JSON Lines.
#[derive(Deserialize)]
struct PromptLine {
    prompt: Option<String>,
    adapter: Option<String>,
    /// Conversation, which is read again with its tools.
    messages: Option<serde_json::Value>,
}

/// Reads the prompts of the options and their file.
fn prompts(options: &GenerateOptions) -> Result<Vec<Prompt>, TrainError> {
    let mut prompts = Vec::new();
    let of_text = |text: String, adapter: Option<String>, origin| Prompt {
        chat: options.chat.then(|| {
            let system = options.system.iter();
            let system = system.map(|text| Message::new("system", text));
            let user = Message::new("user", &*text);
            Conversation::new(system.chain([user]).collect::<Vec<_>>())
        }),
        text,
        adapter: adapter.or_else(|| options.use_adapter.clone()),
        origin,
    };
    for (index, text) in options.prompt.iter().enumerate() {
        let origin = Origin::new(Path::new("--prompt"), index + 1);
        prompts.push(of_text(text.clone(), None, origin));
    }
    if let Some(path) = &options.prompts {
        let mut lines = Lines::open_input(path)?;
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_json = matches!(extension, Some("jsonl" | "ndjson"));
        while let Some((line, origin)) = lines.next_text()? {
            if !is_json {
                prompts.push(of_text(line, None, origin));
                continue;
            }
            let object: PromptLine = serde_json::from_str(&line).map_err(|error| {
                origin.error(format!("expected an object with `prompt`: {error}"))
            })?;
            prompts.push(match (object.prompt, object.messages) {
                (Some(text), None) => of_text(text, object.adapter, origin),
                (None, Some(_)) if options.chat => {
                    let mut chat = conversation_of(&line, &origin)?;
                    let has_system = chat.messages.first().is_some_and(|m| m.role() == "system");
                    if let Some(text) = options.system.as_ref().filter(|_| !has_system) {
                        chat.messages.insert(0, Message::new("system", text));
                    }
                    let last = chat.messages.last().and_then(Message::content);
                    Prompt {
                        text: last.unwrap_or_default().to_string(),
                        chat: Some(chat),
                        adapter: object.adapter.or_else(|| options.use_adapter.clone()),
                        origin,
                    }
                }
                (None, Some(_)) => {
                    return Err(origin.error("a conversation is answered with `--chat`"));
                }
                (Some(_), Some(_)) => {
                    return Err(origin.error("has both \"prompt\" and \"messages\""));
                }
                (None, None) => return Err(origin.error("the object has no key \"prompt\"")),
            });
        }
    }
    if prompts.is_empty() {
        let message = "is missing: give --prompt or --prompts";
        return Err(TrainError::config("prompt", message));
    }
    Ok(prompts)
}

/// Reads the conversation of a line, whose last message is answered.
fn conversation_of(line: &str, origin: &Origin) -> Result<Conversation, TrainError> {
    let chat = read_conversation(line, origin)?;
    if chat.messages.last().is_some_and(Message::is_of_assistant) {
        let message =
            "the last message is the assistant's, and there is nothing to answer; leave it out";
        return Err(origin.error(message));
    }
    Ok(chat)
}
