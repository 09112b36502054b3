//! Paths in a recipe: one as a text, or several as a list.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;

/// Value in a recipe.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a path, or a list of paths")]
enum Value {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

pub(super) fn serialize<S: Serializer>(
    paths: &[PathBuf],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match paths {
        [one] => one.serialize(serializer),
        several => several.serialize(serializer),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<PathBuf>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::One(path) => vec![path],
        Value::Several(paths) => paths,
    })
}
