//! Ids of tokens in a `config.json`.

use serde::Deserialize;
use serde_json::{Value, json};

/// One token id, several or none.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum TokenIds {
    One(u32),
    Many(Vec<u32>),
    None,
}

impl TokenIds {
    /// Returns the ids as a list.
    pub(crate) fn into_list(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
            Self::None => Vec::new(),
        }
    }

    /// Returns a list of ids as a configuration has it.
    pub(crate) fn json(ids: &[u32]) -> Value {
        match ids {
            [] => Value::Null,
            [id] => json!(id),
            ids => json!(ids),
        }
    }
}
