//! Conversations: the messages that a chat template renders, and the tools that they may call.

use serde_json::{Map, Value};

/// Name of the role whose turns a model learns.
pub(super) const ASSISTANT: &str = "assistant";

/// Keys under which data sets keep the reasoning of a turn; templates read the first or the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Message of a conversation: a JSON object with `role` and `content`, and whatever else a template reads of it, such as
/// `tool_calls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Map<String, Value>);

impl Message {
    /// Creates a message of a role, such as `system`, `user` or `assistant`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let mut object = Map::new();
        object.insert("role".into(), Value::String(role.into()));
        object.insert("content".into(), Value::String(content.into()));
        Self(object)
    }

    /// Creates a message from the object of a file. As in transformers, keys without a value are left out, and the reasoning of
    /// a turn is found by each of the names that templates have for it.
    pub fn from_object(object: Map<String, Value>) -> Self {
        let mut object: Map<String, Value> = object
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        let reasoning = REASONING.iter().find_map(|key| object.get(*key)).cloned();
        if let Some(reasoning) = reasoning {
            object
                .entry("thinking")
                .or_insert_with(|| reasoning.clone());
            object.insert(REASONING[0].into(), reasoning);
        }
        Self(object)
    }

    /// Returns the role; empty if there is none.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or("")
    }

    /// Returns the content, if it is a text.
    pub fn content(&self) -> Option<&str> {
        self.0.get("content").and_then(Value::as_str)
    }

    /// Returns the object with all keys.
    pub fn object(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns true for a turn of the assistant.
    pub fn is_of_assistant(&self) -> bool {
        self.role() == ASSISTANT
    }
}

/// Messages in their order, with the tools that the assistant may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// Messages.
    pub messages: Vec<Message>,
    /// Descriptions of the tools, as JSON schemas; `None` without any.
    pub tools: Option<Vec<Value>>,
}

impl Conversation {
    /// Creates a conversation without tools.
    pub fn new(messages: impl Into<Vec<Message>>) -> Self {
        Self {
            messages: messages.into(),
            tools: None,
        }
    }

    /// Sets the tools.
    #[must_use]
    pub fn with_tools(mut self, tools: Option<Vec<Value>>) -> Self {
        self.tools = tools;
        self
    }

    /// Returns the conversation with its first messages only.
    #[must_use]
    pub fn first(&self, messages: usize) -> Self {
        Self {
            messages: self.messages[..messages].to_vec(),
            tools: self.tools.clone(),
        }
    }

    /// Returns the positions of the assistant's messages.
    pub fn turns_of_assistant(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let messages = self.messages.iter().enumerate();
        messages.filter_map(|(at, message)| message.is_of_assistant().then_some(at))
    }
}
