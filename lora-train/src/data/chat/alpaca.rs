//! Records of Alpaca, as conversations of one turn.
//!
//! ```json
//! {"instruction": "Translate to French.", "input": "cheese", "output": "fromage", "system": "Be brief.", "history": [["Hi", "Hello"]]}
//! ```
//!
//! As in LLaMA-Factory, instruction and input are the user's message, one a line; `system` and `history` may be missing.

use lora_models::chat::{Conversation, Message};
use serde_json::Value;

use crate::data::jsonl::{Object, kind, optional_string, string};

/// Makes a conversation of an object.
pub(super) fn conversation(mut object: Object) -> Result<Conversation, String> {
    let instruction = string(object.remove("instruction"), "instruction")?;
    let input = optional_string(object.remove("input"), "input")?;
    let output = string(object.remove("output"), "output")?;
    let system = optional_string(object.remove("system"), "system")?;
    let system = system.filter(|text| !text.trim().is_empty());
    let mut messages: Vec<Message> = system
        .map(|text| Message::new("system", text))
        .into_iter()
        .collect();
    for (at, turn) in history(object.remove("history"))?.into_iter().enumerate() {
        match turn.as_array().map(Vec::as_slice) {
            Some([Value::String(user), Value::String(assistant)]) => {
                messages.push(Message::new("user", user));
                messages.push(Message::new("assistant", assistant));
            }
            _ => {
                return Err(format!(
                    "history[{at}] is {}, expected a list of a question and its answer",
                    kind(&turn)
                ));
            }
        }
    }
    let user = match input.filter(|input| !input.is_empty()) {
        Some(input) => format!("{instruction}\n{input}"),
        None => instruction,
    };
    messages.push(Message::new("user", user));
    messages.push(Message::new("assistant", output));
    Ok(Conversation::new(messages))
}

fn history(value: Option<Value>) -> Result<Vec<Value>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(turns)) => Ok(turns),
        Some(other) => Err(format!("\"history\" is {}, expected a list", kind(&other))),
    }
}
