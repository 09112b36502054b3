//! Conversations of ShareGPT, as Vicuna's data and many after it have them.
//!
//! ```json
//! {"system": "Be brief.", "conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]}
//! ```
//!
//! Data sets of later years keep messages with `role` and `content` under the same key; these are read, too.

use lora_models::chat::{Conversation, Message};
use serde_json::{Value, json};

use super::messages;
use crate::data::jsonl::{Object, optional_string, string};

/// Key of the messages.
const KEY: &str = "conversations";
/// Names of the speakers, with their roles. `function_call` calls a tool, by an object of `name` and `arguments`.
const ROLES: [(&str, &str); 14] = [
    ("human", "user"),
    ("user", "user"),
    ("gpt", "assistant"),
    ("assistant", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("model", "assistant"),
    ("system", "system"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
    ("function", "tool"),
    ("ipython", "tool"),
];
/// Name of the speaker who calls a tool.
const CALL: &str = "function_call";

/// Makes a conversation of an object.
pub(super) fn conversation(mut object: Object) -> Result<Conversation, String> {
    let tools = messages::tools(object.remove("tools"))?;
    let system = optional_string(object.remove("system"), "system")?;
    let system = system.filter(|text| !text.trim().is_empty());
    let mut all: Vec<Message> = system
        .map(|text| Message::new("system", text))
        .into_iter()
        .collect();
    let elements = messages::elements(&mut object, KEY)?;
    for (at, element) in elements.into_iter().enumerate() {
        let name = format!("{KEY}[{at}]");
        let element = messages::into_object(element, &name)?;
        all.push(
            if element.contains_key("role") && !element.contains_key("from") {
                messages::message(element, &name)?
            } else {
                message(element, &name)?
            },
        );
    }
    Ok(Conversation::new(all).with_tools(tools))
}

fn message(mut object: Object, name: &str) -> Result<Message, String> {
    let in_message = |error: String| format!("{name}: {error}");
    let from = string(object.remove("from"), "from").map_err(in_message)?;
    let value = string(object.remove("value"), "value").map_err(in_message)?;
    if from == CALL {
        return call(&value).ok_or_else(|| {
            format!("{name}.value is no call of a tool; expected an object with \"name\" and \"arguments\"")
        });
    }
    match ROLES.iter().find(|(own, _)| *own == from) {
        Some((_, role)) => Ok(Message::new(*role, value)),
        None => {
            let known: Vec<&str> = ROLES.iter().map(|(own, _)| *own).collect();
            Err(format!(
                "{name}.from is `{from}`, expected one of {}, {CALL}",
                known.join(", ")
            ))
        }
    }
}

/// Makes the message of a call.
fn call(text: &str) -> Option<Message> {
    let calls = match serde_json::from_str(text).ok()? {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    let named = calls.iter().all(|call| call["name"].is_string());
    if calls.is_empty() || !named {
        return None;
    }
    let calls: Vec<Value> = calls
        .into_iter()
        .map(|call| json!({"type": "function", "function": call}))
        .collect();
    let message = json!({"role": "assistant", "content": "", "tool_calls": calls});
    Some(Message::from_object(message.as_object()?.clone()))
}
