//! Conversations with a model, message by message.

use super::chat_input::{HELP, Input, read_input};
use super::choice::{ANSWER_TOKENS, SamplingOptions, Unsupported, generation_config_for};
use super::template::chat_template;
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::jobs::adapters::AdapterOptions;
use crate::jobs::session::Session;
use crate::jobs::sources::Sources;
use crate::options::{Precision, TemplateVariables};
use crate::progress::Screen;
use burn::tensor::Device;
use clap::Args;
use lora_core::named::NamedAdapters;
use lora_core::ops::with_mixed_precision;
use lora_core::{BaseDType, HalfFloat, Quantization};
use lora_models::chat::{ChatTemplate, Conversation, Message};
use lora_models::generate::{GenerationConfig, Generator};
use lora_models::tokenizer::Tokenizer;
use lora_models::{CausalLm, LoadOptions, ModelAdapters, dispatch};
use std::path::PathBuf;

/// Name for no adapter.
const NONE: &str = "none";

/// Options of `lora chat`.
#[derive(Args, Clone, Debug, Default)]
pub struct ChatOptions {
    /// Directory of the model.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Adapters on it.
    #[command(flatten)]
    pub adapters: AdapterOptions,
    /// With named adapters: the one to begin with [default: the first].
    #[arg(long = "use", value_name = "NAME")]
    pub use_adapter: Option<String>,
    /// Message of the system at the beginning of each conversation.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Chat template, in Jinja [default: the one that comes with the adapter or the model].
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// Variables of the chat template as a JSON object, such as `{"enable_thinking": false}`.
    #[arg(long, value_name = "JSON")]
    pub chat_template_kwargs: Option<TemplateVariables>,
    /// Keep the frozen weights of the model in 4 or 8 bits: nf4 or int8 [default: not quantized].
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// Float type of the frozen weights in memory: f32, f16, bf16, or auto for that of the checkpoint; everything is computed in f32 [default: f32].
    #[arg(long, value_name = "TYPE")]
    pub base_dtype: Option<BaseDType>,
    /// Precision of products with frozen weights: f32, or mixed on GPUs [default: f32].
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<Precision>,
    /// Maximum number of tokens of an answer [default: the model's, else 512, within the length of the model].
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Choice of tokens.
    #[command(flatten)]
    pub sampling: SamplingOptions,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
}

/// Ends of a conversation: where its lines come from and its texts go to.
pub struct Terminal<'a> {
    /// Returns the next line without its end, and `None` at the end. It is told whether the line goes on with a message.
    pub next_line: &'a mut dyn FnMut(bool) -> Result<Option<String>, TrainError>,
    /// Takes a piece of an answer, and an empty one at its end.
    pub piece: &'a mut dyn FnMut(&str) -> Result<(), TrainError>,
}

/// Talks with a model until the input ends. Messages that cannot be answered are told on the screen, and the conversation goes on.
///
/// # Errors
/// If files are malformed, the model has no chat template, or the terminal fails.
pub fn chat(
    options: &ChatOptions,
    screen: &Screen,
    mut terminal: Terminal<'_>,
) -> Result<(), TrainError> {
    let default = options.use_adapter.as_deref();
    let selection = options.adapters.selection_with(default)?;
    let sources = Sources::open(&options.model, &selection)?;
    dispatch!(sources.model.config(),
        causal M(config) => chat_with::<M>(options, &sources, config, screen, &mut terminal),
        encoder M(_) => Err(super::no_language_model(&sources)),
    )
}

fn chat_with<M: CausalLm>(
    options: &ChatOptions,
    sources: &Sources,
    config: &M::Config,
    screen: &Screen,
    terminal: &mut Terminal<'_>,
) -> Result<(), TrainError> {
    let device = device::open(options.device)?;
    let quantize = sources.quantize(options.quantize, &[])?;
    let mixed = options.precision.unwrap_or_default().half_on(&device)?;
    let floats = sources.floats(options.base_dtype, mixed, &[])?;
    let load = LoadOptions::default()
        .with_quantize(quantize)
        .with_floats(floats);
    let (dir, adapter) = (&sources.model, sources.one());
    // Template and options are checked before weights are read.
    let (_, base) = Session::<M>::outline(dir, config, adapter, &load, &device)?;
    let (given, variables) = (&options.chat_template, &options.chat_template_kwargs);
    let template = chat_template(&base, given.as_deref(), variables.as_ref())?;
    let new = (options.max_new_tokens, ANSWER_TOKENS);
    let refuse = Unsupported::Refuse;
    let generation = generation_config_for(&base, &options.sampling, new, refuse, screen)?;
    let session = Session::<M>::open(dir, config, adapter, &load, &device)?;
    screen.line(&format!("model     {}", session.summary));
    let strict = options.adapters.strict_base;
    sources.check_base(session.adapter.as_ref(), strict, screen)?;
    let model = session.model;
    let named = if sources.is_named() {
        Some(options.adapters.put(model.clone(), sources, screen)?)
    } else {
        None
    };
    let first = sources.named().next().map(|(name, _)| name.to_string());
    if let (Some(named), Some(name)) = (&named, &options.use_adapter)
        && !named.names().any(|own| own == name)
    {
        let names = named.names().collect::<Vec<_>>().join(", ");
        let message = format!("names no adapter: `{name}` is none of {names}");
        return Err(TrainError::config("use", message));
    }
    let mut talk = Talk {
        tokenizer: &base.tokenizer,
        template,
        generation,
        device: &device,
        mixed,
        chat: Conversation::default(),
        system: options.system.clone(),
        adapter: options.use_adapter.clone().or(first),
        turn: 0,
    };
    talk.choose(named.as_ref(), talk.adapter.clone(), screen);
    talk.reset();
    screen.line("chat      /help tells what to type");
    while let Some(input) = read_input(terminal.next_line)? {
        match input {
            Input::Exit => break,
            Input::Help => screen.line(HELP),
            Input::Reset => {
                talk.reset();
                screen.line("a new conversation");
            }
            Input::Adapter(name) => talk.choose(named.as_ref(), name, screen),
            Input::Unknown(command) => {
                screen.line(&format!("there is no command {command}; /help lists them"));
            }
            Input::Message(text) => {
                talk.chat.messages.push(Message::new("user", text));
                match talk.answer(&model, named.as_ref(), &mut *terminal.piece)? {
                    Ok(text) => talk.chat.messages.push(Message::new("assistant", text)),
                    Err(reason) => {
                        // The message was not answered, so it is none of the conversation.
                        talk.chat.messages.pop();
                        screen.line(&format!("{reason}; /reset begins a new conversation"));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Conversation that goes on.
struct Talk<'a> {
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    generation: GenerationConfig,
    device: &'a Device,
    mixed: Option<HalfFloat>,
    chat: Conversation,
    system: Option<String>,
    /// Name of the adapter in use; `None` for the model alone, or with its only adapter.
    adapter: Option<String>,
    /// Number of answers, by which their random draws differ.
    turn: usize,
}

impl Talk<'_> {
    /// Begins a new conversation.
    fn reset(&mut self) {
        let system = self.system.iter();
        let system = system.map(|text| Message::new("system", text));
        self.chat = Conversation::new(system.collect::<Vec<_>>());
    }

    /// Chooses an adapter by its name, or lists them.
    fn choose<M: CausalLm>(
        &mut self,
        named: Option<&NamedAdapters<M>>,
        name: Option<String>,
        screen: &Screen,
    ) {
        let Some(named) = named else {
            if name.is_some() {
                screen.line("no adapter has a name; give them as `--adapter NAME=DIR`");
            }
            return;
        };
        let names = named.names().collect::<Vec<_>>().join(", ");
        match name {
            None => {
                let own = self.adapter.as_deref().unwrap_or(NONE);
                screen.line(&format!("adapters: {names}, {NONE}; in use: {own}"));
            }
            Some(name) if name == NONE || named.names().any(|own| own == name) => {
                screen.line(&format!("adapter   {name}"));
                self.adapter = Some(name).filter(|name| name != NONE);
            }
            Some(name) => {
                screen.line(&format!(
                    "there is no adapter `{name}`; there are {names}, and {NONE}"
                ));
            }
        }
    }

    /// Generates the answer to the last message, piece by piece, or returns the reason why there is none.
    fn answer<M: CausalLm>(
        &mut self,
        model: &M,
        named: Option<&NamedAdapters<M>>,
        piece: &mut dyn FnMut(&str) -> Result<(), TrainError>,
    ) -> Result<Result<String, String>, TrainError> {
        let prompt = match self.template.prompt(&self.chat) {
            Ok(prompt) => self.tokenizer.encode(&prompt)?,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut config = self.generation.clone();
        let room = model.max_positions().saturating_sub(prompt.len());
        config.max_new_tokens = config.max_new_tokens.min(room.max(1));
        if let Err(message) = config.check_prompt(model, &prompt) {
            return Ok(Err(format!("the conversation {message}")));
        }
        let (mut text, mut written) = (String::new(), Ok(()));
        let on_text = |part: &str| {
            text.push_str(part);
            if written.is_ok() {
                written = piece(part);
            }
        };
        let (turn, device) = (self.turn, self.device);
        let generated = with_mixed_precision(self.mixed, || match named {
            None => Generator::new(model, config, device)
                .with_first(turn)
                .stream(&prompt, self.tokenizer, on_text),
            Some(named) => {
                let model = named.for_prompts(&[self.adapter.as_deref()])?;
                Generator::new(&model, config, device)
                    .with_first(turn)
                    .stream(&prompt, self.tokenizer, on_text)
            }
        });
        generated?;
        written?;
        piece("")?;
        self.turn += 1;
        Ok(Ok(text))
    }
}
