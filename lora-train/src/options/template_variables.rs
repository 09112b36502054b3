//! Variables of a chat template: a JSON object on the command line, a table in a recipe.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::str::FromStr;

/// Variables of a chat template beside the conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateVariables(pub Map<String, Value>);

impl FromStr for TemplateVariables {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => match object.iter().find(|(_, value)| value.is_null()) {
                // A recipe has no place for it.
                Some((key, _)) => Err(format!("`{key}` is null; leave it out instead")),
                None => Ok(Self(object)),
            },
            Ok(_) => Err("expected a JSON object, such as {\"enable_thinking\": false}".into()),
            Err(error) => Err(format!("expected a JSON object: {error}")),
        }
    }
}
