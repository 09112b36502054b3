//! Chat templates: sources, compiled and rendered.

use super::conversation::Conversation;
use super::environment::{environment, start};
use super::files::{Source, Sources, TEMPLATE_FILES, read_file};
use super::limits::{self, MAX_SOURCE};
use super::rendered::Rendered;
use super::source::rewrite;
use crate::error::ModelError;
use crate::tokenizer::{Tokenizer, TokenizerFiles};
use lora_core::files::Directory;
use minijinja::value::Value;
use minijinja::{Environment, Error};
use serde_json::Map;
use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

/// Name of the compiled template.
const NAME: &str = "chat_template";

/// Chat template of a model: it makes the text of a conversation that the model reads.
///
/// # Example
/// ```
/// use lora_models::chat::{ChatTemplate, Conversation, Message, TrainOn};
///
/// let source = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}\
///               {% if add_generation_prompt %}<|assistant|>{% endif %}";
/// let template = ChatTemplate::from_source("example", source)?;
/// let mut chat = Conversation::new([Message::new("user", "2 + 2?")]);
/// assert_eq!(template.prompt(&chat)?, "<|user|>2 + 2?<|end|><|assistant|>");
///
/// chat.messages.push(Message::new("assistant", "4"));
/// let rendered = template.render(&chat, TrainOn::Assistant)?;
/// assert_eq!(rendered.text, "<|user|>2 + 2?<|end|><|assistant|>4<|end|>");
/// assert_eq!(&rendered.text[rendered.learned[0].clone()], "4<|end|>");
/// # Ok::<(), lora_models::ModelError>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    default: Compiled,
    tool_use: Option<Compiled>,
    /// Variables beside messages and tools.
    variables: Map<String, serde_json::Value>,
}

#[derive(Clone)]
struct Compiled {
    env: Arc<Environment<'static>>,
    source: Arc<Source>,
    has_generation: bool,
}

impl ChatTemplate {
    /// Reads the template of a model directory; `None` if it has none.
    ///
    /// As in transformers, it is `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`: a text, or a list of
    /// which `default` is used, and `tool_use` for conversations with tools (`additional_chat_templates/tool_use.jinja`).
    ///
    /// # Errors
    /// If a file cannot be read or a template does not compile.
    pub fn from_dir(dir: impl Into<Directory>) -> Result<Option<Self>, ModelError> {
        let sources = Sources::read(&dir.into())?;
        sources.map(Self::new).transpose()
    }

    /// Reads a template from a file of its own.
    ///
    /// # Errors
    /// If the file cannot be read or does not compile.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::new(Sources::one(read_file(path.as_ref())?))
    }

    /// Compiles a template that messages call `place`.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] if it does not compile.
    pub fn from_source(
        place: impl AsRef<Path>,
        source: impl Into<String>,
    ) -> Result<Self, ModelError> {
        Self::new(Sources::one(Source {
            place: place.as_ref().into(),
            text: source.into(),
        }))
    }

    fn new(sources: Sources) -> Result<Self, ModelError> {
        Ok(Self {
            default: Compiled::new(sources.default)?,
            tool_use: sources.tool_use.map(Compiled::new).transpose()?,
            variables: Map::new(),
        })
    }

    /// Sets the special tokens of a tokenizer as variables: `bos_token`, `eos_token` and the others that its files name.
    #[must_use]
    pub fn with_tokens_of(mut self, tokenizer: &Tokenizer) -> Self {
        let tokens = tokenizer.named_tokens();
        self.variables
            .extend(tokens.map(|(key, token)| (key.to_string(), token.into())));
        self
    }

    /// Sets further variables, such as `enable_thinking` of Qwen3.
    #[must_use]
    pub fn with_variables(mut self, variables: Map<String, serde_json::Value>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// Returns the files by which a model directory has the template: names and contents.
    pub fn files(&self) -> TokenizerFiles {
        let sources = [Some(&self.default), self.tool_use.as_ref()];
        let files = TEMPLATE_FILES.iter().zip(sources);
        let bytes = |compiled: &Compiled| compiled.source.text.clone().into_bytes();
        let files = files.filter_map(|(name, source)| Some((name.to_string(), bytes(source?))));
        files.collect()
    }

    /// Returns a variable that is a text.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name)?.as_str()
    }

    /// Returns the place of the template.
    pub fn place(&self) -> &Path {
        &self.default.source.place
    }

    /// Returns true if the template for a conversation names what the assistant has generated (`{% generation %}`).
    pub fn has_generation(&self, chat: &Conversation) -> bool {
        self.compiled(chat).has_generation
    }

    /// Renders a conversation up to the place where the assistant's next message begins.
    ///
    /// # Errors
    /// [`ModelError::ChatTemplate`] if the template refuses the conversation, fails, or exceeds its limits.
    pub fn prompt(&self, chat: &Conversation) -> Result<String, ModelError> {
        self.text(chat, true)
    }

    /// Renders a conversation, with or without the beginning of the assistant's next message.
    pub(super) fn text(
        &self,
        chat: &Conversation,
        add_generation_prompt: bool,
    ) -> Result<String, ModelError> {
        self.run(chat, add_generation_prompt, None)
    }

    /// Renders a conversation with marks around what the assistant has generated.
    pub(super) fn marked(&self, chat: &Conversation) -> Result<Rendered, ModelError> {
        let marks = self.marks_for(chat)?;
        let text = self.run(chat, false, Some(marks))?;
        Rendered::without_marks(&text, marks)
            .ok_or_else(|| self.error(chat, "it prints what the assistant has generated in parts"))
    }

    /// Creates an error of the template for a conversation.
    pub(super) fn error(&self, chat: &Conversation, message: impl Into<String>) -> ModelError {
        ModelError::chat_template(&self.compiled(chat).source.place, message)
    }

    fn compiled(&self, chat: &Conversation) -> &Compiled {
        let own = self.tool_use.as_ref().filter(|_| chat.tools.is_some());
        own.unwrap_or(&self.default)
    }

    /// Chooses two characters that neither the conversation nor the template has.
    fn marks_for(&self, chat: &Conversation) -> Result<[char; 2], ModelError> {
        // Characters that Unicode sets aside for use inside of programs.
        let mut candidates = ('\u{fdd0}'..='\u{fdef}').filter(|mark| {
            let own = self.variables.values();
            let of_messages = chat.messages.iter().flat_map(|m| m.object().values());
            let tools = chat.tools.iter().flatten();
            let is_in_values = own.chain(of_messages).chain(tools).any(|v| has(v, *mark));
            !is_in_values && !self.compiled(chat).source.text.contains(*mark)
        });
        match (candidates.next(), candidates.next()) {
            (Some(open), Some(close)) => Ok([open, close]),
            _ => Err(self.error(
                chat,
                "the conversation has characters that are none in Unicode",
            )),
        }
    }

    fn run(
        &self,
        chat: &Conversation,
        add_generation_prompt: bool,
        marks: Option<[char; 2]>,
    ) -> Result<String, ModelError> {
        let compiled = self.compiled(chat);
        let messages = chat.messages.iter();
        let messages: Vec<Value> = messages
            .map(|message| Value::from_serialize(message.object()))
            .collect();
        let context = [
            ("tools", Value::from_serialize(&chat.tools)),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("messages", Value::from(messages)),
        ];
        let variables = self.variables.iter();
        let variables = variables.map(|(key, value)| (&**key, Value::from_serialize(value)));
        let context = Value::from_iter(variables.chain(context));
        let mut env = Environment::clone(&compiled.env);
        env.set_fuel(Some(limits::fuel(chat.messages.len())));
        let template = env.get_template(NAME);
        let of_messages = chat.messages.iter().flat_map(|m| m.object().values());
        let variables = self.variables.values().chain(chat.tools.iter().flatten());
        let size = of_messages.chain(variables).map(size_of).sum();
        start(chat.messages.len(), size, marks);
        let result = template.and_then(|template| template.render(context));
        result.map_err(|error| compiled.failed(&error))
    }
}

impl Compiled {
    fn new(source: Source) -> Result<Self, ModelError> {
        if source.text.len() as u64 > MAX_SOURCE {
            let message = format!("it is larger than {} KiB", MAX_SOURCE >> 10);
            return Err(ModelError::chat_template(&source.place, message));
        }
        // As Jinja reads it.
        let text = source.text.replace("\r\n", "\n").replace('\r', "\n");
        let rewritten = rewrite(&text);
        if let Some((line, reason)) = rewritten.refused {
            let message = format!("line {line} {reason}");
            return Err(ModelError::chat_template(&source.place, message));
        }
        let mut env = environment();
        let compiled = env.add_template_owned(NAME, rewritten.source);
        let result = Self {
            env: Arc::new(env),
            source: Arc::new(source),
            has_generation: rewritten.has_generation,
        };
        match compiled {
            Ok(()) => Ok(result),
            Err(error) => Err(result.failed(&error)),
        }
    }

    /// Creates the error of a failed template, with the line.
    fn failed(&self, error: &Error) -> ModelError {
        // The cause stands innermost: a macro that fails is named first.
        let mut innermost = error;
        while let Some(cause) = innermost.source().and_then(|e| e.downcast_ref::<Error>()) {
            innermost = cause;
        }
        let what = match innermost.detail() {
            Some(detail) => detail.to_string(),
            None => innermost.kind().to_string(),
        };
        let line = innermost.line().or(error.line());
        let message = match line {
            Some(line) => format!("line {line}: {what}"),
            None => what,
        };
        ModelError::chat_template(&self.source.place, message)
    }
}

/// Returns the size of a value's texts, in bytes.
fn size_of(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(elements) => elements.iter().map(size_of).sum(),
        serde_json::Value::Object(object) => {
            let members = object.iter();
            members.map(|(key, value)| key.len() + size_of(value)).sum()
        }
        _ => 8,
    }
}

/// Returns true if a text in a value has a character.
fn has(value: &serde_json::Value, mark: char) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains(mark),
        serde_json::Value::Array(elements) => elements.iter().any(|element| has(element, mark)),
        serde_json::Value::Object(object) => object
            .iter()
            .any(|(key, value)| key.contains(mark) || has(value, mark)),
        _ => false,
    }
}

impl std::fmt::Debug for ChatTemplate {
    /// Omits the sources.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("place", &self.place())
            .field("variables", &self.variables)
            .finish_non_exhaustive()
    }
}
