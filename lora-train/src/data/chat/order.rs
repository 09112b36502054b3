//! Order of the roles in a conversation, and answers to calls of tools.

use lora_models::chat::{Conversation, Message};
use serde_json::Value;
use std::collections::BTreeSet;

/// Roles of messages that answer a call of a tool.
const ANSWERS: [&str; 4] = ["tool", "function", "ipython", "observation"];
/// Role of the user.
const USER: &str = "user";

/// Refuses a conversation whose user and assistant do not alternate, and one with a call of a tool that is not answered. A call in the
/// last message is an answer to learn.
///
/// Messages of other roles, such as `system`, may stand anywhere.
pub(super) fn check_order(chat: &Conversation) -> Result<(), String> {
    let mut last: Option<(usize, &Message)> = None;
    // Calls of the last message of the assistant that wait for their answer, by their ids.
    let mut waiting: Option<(usize, BTreeSet<&str>)> = None;
    for (at, message) in chat.messages.iter().enumerate() {
        if ANSWERS.contains(&message.role()) {
            if let Some((call, ids)) = &mut waiting {
                let id = text(message.object().get("tool_call_id"));
                if let Some(id) = id.filter(|_| !ids.is_empty())
                    && !ids.remove(id)
                {
                    return Err(format!(
                        "messages[{at}].tool_call_id is `{id}`, but messages[{call}] makes no such call, or it was answered before"
                    ));
                }
                if ids.is_empty() {
                    waiting = None;
                }
            }
            // The assistant speaks again after the answer of a tool.
            last = None;
            continue;
        }
        if let Some((call, ids)) = waiting.take() {
            let which: Vec<&str> = ids.into_iter().collect();
            let which = match which.join("`, `") {
                ids if ids.is_empty() => String::new(),
                ids => format!(" (`{ids}`)"),
            };
            return Err(format!(
                "messages[{call}].tool_calls{which} has no answer: messages[{at}] is of `{}`, expected `tool`",
                message.role()
            ));
        }
        let is_turn = message.is_of_assistant() || message.role() == USER;
        if !is_turn {
            continue;
        }
        if let Some((before, _)) = last.filter(|(_, own)| own.role() == message.role()) {
            return Err(format!(
                "messages[{at}].role is `{}`, as that of messages[{before}]: user and assistant do not alternate; join the two, or leave one out",
                message.role()
            ));
        }
        last = Some((at, message));
        waiting = calls(message).map(|ids| (at, ids));
    }
    Ok(())
}

/// Returns the ids of the calls of a message; `None` without calls, and empty if they have no ids.
fn calls(message: &Message) -> Option<BTreeSet<&str>> {
    let calls = message.object().get("tool_calls")?.as_array()?;
    let ids = calls.iter().filter_map(|call| text(call.get("id")));
    (!calls.is_empty()).then(|| ids.collect())
}

fn text(value: Option<&Value>) -> Option<&str> {
    value?.as_str()
}
