//! Chat templates: from messages to the text that a model reads, and the parts of it that the assistant wrote.
//!
//! A model that was tuned for conversations comes with a template in Jinja. [`ChatTemplate`] renders it as transformers does, and
//! [`ChatTemplate::render`] tells which parts of the text to learn.
//!
//! | concept | file |
//! | --- | --- |
//! | [`Message`] and [`Conversation`] | `conversation.rs` |
//! | the templates in a model directory | `files.rs` |
//! | [`ChatTemplate`], compiled and rendered | `template.rs` |
//! | [`Rendered`] text with its learned parts, found by the template's own marks or by prefixes | `rendered.rs`, `spans.rs` |
//! | the source, rewritten for the marks and for the limits | `source.rs` |
//! | functions, filters and tests of transformers' environment | `environment.rs`, `json.rs`, `python.rs`, `time.rs` |
//! | limits of a hostile template | `limits.rs` |
//!
//! A template is code that comes with a model, and may be hostile. It sees its variables alone, and its instructions and the bytes
//! that it copies are bounded.
//!
//! Differences from transformers: `strftime_now` is in UTC; a list is not multiplied; a width in a format has four digits at most.

mod conversation;
mod environment;
mod files;
mod json;
mod limits;
mod python;
mod rendered;
mod source;
mod spans;
mod template;
mod time;

pub use conversation::{Conversation, Message};
pub use files::TEMPLATE_FILES;
pub(crate) use files::default_source;
pub use rendered::Rendered;
pub use spans::TrainOn;
pub use template::ChatTemplate;
