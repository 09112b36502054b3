//! Conversations: `messages` with their tools, ShareGPT and Alpaca, which are one form once they are read.
//!
//! | file | contents |
//! | --- | --- |
//! | `read` | conversations of a file |
//! | `messages`, `sharegpt`, `alpaca` | a conversation from the object of each form |
//! | `order` | order of the roles, and answers to calls of tools |
//! | `encode` | [`encode_chats`]: tokens by the model's chat template, with the learned parts |

mod alpaca;
mod encode;
mod messages;
mod order;
mod read;
mod sharegpt;

pub(crate) use encode::ChatEncoder;
pub use encode::{ChatEncodingOptions, ChatReport, encode_chats};
pub(super) use read::each;
pub(crate) use read::read_conversation;
