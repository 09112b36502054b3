//! Conversations as OpenAI and transformers write them.
//!
//! ```json
//! {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}], "tools": []}
//! ```

use lora_models::chat::{Conversation, Message};
use serde_json::Value;

use crate::data::jsonl::{Object, kind};

/// Key of the messages.
pub(super) const KEY: &str = "messages";
/// Key of the tools.
const TOOLS: &str = "tools";

/// Makes a conversation of an object, with the messages of `key`. Errors name the key.
pub(super) fn conversation(mut object: Object, key: &str) -> Result<Conversation, String> {
    let tools = tools(object.remove(TOOLS))?;
    let mut messages = Vec::new();
    for (at, element) in elements(&mut object, key)?.into_iter().enumerate() {
        let name = format!("{key}[{at}]");
        messages.push(message(into_object(element, &name)?, &name)?);
    }
    Ok(Conversation::new(messages).with_tools(tools))
}

/// Takes the list of a key, which must have an element.
pub(super) fn elements(object: &mut Object, key: &str) -> Result<Vec<Value>, String> {
    match object.remove(key) {
        Some(Value::Array(elements)) if !elements.is_empty() => Ok(elements),
        Some(Value::Array(_)) => Err(format!("\"{key}\" is an empty list; expected messages")),
        Some(other) => Err(format!(
            "\"{key}\" is {}, expected a list of messages",
            kind(&other)
        )),
        None => Err(format!("the object has no key \"{key}\"")),
    }
}

pub(super) fn into_object(value: Value, name: &str) -> Result<Object, String> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(format!("{name} is {}, expected an object", kind(&other))),
    }
}

/// Makes a message of its object, which messages of errors call `name`.
pub(super) fn message(object: Object, name: &str) -> Result<Message, String> {
    match object.get("role") {
        Some(Value::String(role)) if !role.is_empty() => {}
        Some(Value::String(_)) => return Err(format!("{name}.role is empty")),
        Some(other) => {
            return Err(format!("{name}.role is {}, expected a string", kind(other)));
        }
        None => return Err(format!("{name} has no key \"role\"")),
    }
    let calls = match object.get("tool_calls") {
        None | Some(Value::Null) => 0,
        Some(Value::Array(calls)) => {
            for (at, call) in calls.iter().enumerate() {
                let function = call.get("function").unwrap_or(call);
                if !function.get("name").is_some_and(Value::is_string) {
                    return Err(format!("{name}.tool_calls[{at}] names no function"));
                }
            }
            calls.len()
        }
        Some(other) => {
            return Err(format!(
                "{name}.tool_calls is {}, expected a list",
                kind(other)
            ));
        }
    };
    match object.get("content") {
        Some(Value::String(_) | Value::Array(_)) => {}
        None | Some(Value::Null) if calls > 0 => {}
        None | Some(Value::Null) => {
            return Err(format!("{name} has neither \"content\" nor \"tool_calls\""));
        }
        Some(other) => {
            return Err(format!(
                "{name}.content is {}, expected a string or a list of parts",
                kind(other)
            ));
        }
    }
    Ok(Message::from_object(object))
}

/// Reads the tools: a list of schemas, or the text of one, as data sets in tables keep it.
pub(super) fn tools(value: Option<Value>) -> Result<Option<Vec<Value>>, String> {
    let value = match value {
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
        Some(Value::String(text)) => serde_json::from_str(&text)
            .map_err(|error| format!("\"{TOOLS}\" is a text that is no JSON: {error}"))?,
        Some(value) => value,
        None => return Ok(None),
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(tools) if tools.is_empty() => Ok(None),
        Value::Array(tools) => match tools.iter().position(|tool| !tool.is_object()) {
            None => Ok(Some(tools)),
            Some(at) => Err(format!(
                "{TOOLS}[{at}] is {}, expected the object of a schema",
                kind(&tools[at])
            )),
        },
        other => Err(format!("\"{TOOLS}\" is {}, expected a list", kind(&other))),
    }
}
