//! Conversations of a file.

use std::path::Path;

use super::order::check_order;
use super::{alpaca, messages, sharegpt};
use crate::data::format::DataFormat;
use crate::data::jsonl::{optional_string, parse_object};
use crate::data::objects::each_object;
use crate::data::record::{Content, Each, Origin, Record};
use crate::error::TrainError;
use lora_models::chat::Conversation;

/// Calls a function with each conversation of the file. `adapter` is the key of the adapters' names, if they are to be read.
///
/// # Errors
/// [`TrainError::DataLine`] for the first object that is no conversation, with the key; the errors of reading.
pub(in crate::data) fn each(
    path: &Path,
    format: DataFormat,
    adapter: Option<&str>,
    each: Each<'_>,
) -> Result<(), TrainError> {
    each_object(path, |mut object, origin| {
        let name = match adapter {
            Some(key) => optional_string(object.remove(key), key),
            None => Ok(None),
        };
        let chat = name.and_then(|name| {
            let chat = match format {
                DataFormat::ShareGpt => sharegpt::conversation(object),
                DataFormat::Alpaca => alpaca::conversation(object),
                _ => messages::conversation(object, messages::KEY),
            }?;
            check_order(&chat)?;
            Ok((chat, name))
        });
        let (chat, name) = chat.map_err(|message| origin.error(message))?;
        let record = Record::new(Content::Chat(chat), origin);
        each(record.with_adapter(name.filter(|name| !name.trim().is_empty())))
    })
}

/// Reads the conversation of one JSON object with `messages` and, if there are some, `tools`.
///
/// # Errors
/// [`TrainError::DataLine`] if it is none, with the key.
pub(crate) fn read_conversation(line: &str, origin: &Origin) -> Result<Conversation, TrainError> {
    let chat = parse_object(line).and_then(|object| {
        let chat = messages::conversation(object, messages::KEY)?;
        check_order(&chat)?;
        Ok(chat)
    });
    chat.map_err(|message| origin.error(message))
}
