//! Index of a checkpoint in several files: the shard of each tensor.

use super::bounded::read_json;
use crate::error::ModelError;
use lora_core::files::DirectoryFile;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// Limit for an index, in bytes. The index of a model with a hundred thousand tensors has some 10 MB.
pub(super) const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Limit for the number of shards: each takes a file handle or a memory map.
pub(super) const MAX_SHARDS: usize = 1024;

/// A `*.index.json` whose shard names are plain file names.
///
/// The `metadata` is not read: `total_size` is wrong in many published indexes, and nothing here depends on it.
#[derive(Debug, Deserialize)]
pub(crate) struct ShardIndex {
    #[serde(deserialize_with = "unique_keys")]
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index of shards whose names end with `extension`.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] if a shard's name could lead out of the directory, and the errors of reading bounded
    /// JSON.
    pub(crate) fn read(file: &DirectoryFile, extension: &str) -> Result<Self, ModelError> {
        let index: Self = read_json(file, MAX_INDEX_BYTES)?;
        let shards = index.shard_names();
        let refuse = |message: String| Err(ModelError::malformed(file.path(), message));
        if shards.is_empty() || shards.len() > MAX_SHARDS {
            let count = shards.len();
            return refuse(format!(
                "it names {count} shards; the limit is 1 to {MAX_SHARDS}"
            ));
        }
        for name in shards {
            if !is_plain_file_name(name) || !name.ends_with(extension) {
                return refuse(format!(
                    "it names the shard {name:?}, which is not the plain name of a {extension} file beside it"
                ));
            }
        }
        Ok(index)
    }

    /// Returns the names of the shards, each once, sorted.
    pub(crate) fn shard_names(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Returns each tensor with the name of its shard.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.weight_map
            .iter()
            .map(|(tensor, shard)| (tensor.as_str(), shard.as_str()))
    }
}

/// True if `name` joined to a directory is a file of that directory, on Unix and on Windows.
fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\', ':', '\0'])
        && Path::new(name).components().count() == 1
}

/// Reads a JSON object and refuses repeated keys; `serde` alone would silently keep the last one.
fn unique_keys<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct Unique;
    impl<'de> Visitor<'de> for Unique {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object from tensor names to shard names")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((tensor, shard)) = access.next_entry::<String, String>()? {
                if map.insert(tensor.clone(), shard).is_some() {
                    let message = format!("tensor `{tensor}` is listed twice");
                    return Err(A::Error::custom(message));
                }
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ShardIndex, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors.index.json");
        std::fs::write(&path, json).unwrap();
        ShardIndex::read(&path.into(), ".safetensors")
    }

    #[test]
    fn tensors_and_shards_are_listed() {
        let index = read(
            r#"{"metadata":{"total_size":8},"weight_map":{"b":"y.safetensors","a":"x.safetensors"}}"#,
        )
        .unwrap();
        assert_eq!(
            index.shard_names().into_iter().collect::<Vec<_>>(),
            ["x.safetensors", "y.safetensors"]
        );
        assert_eq!(
            index.tensors().collect::<Vec<_>>(),
            [("a", "x.safetensors"), ("b", "y.safetensors")]
        );
    }

    #[test]
    fn a_shard_outside_the_directory_is_refused() {
        for name in [
            "../x.safetensors",
            "/etc/x.safetensors",
            "sub/x.safetensors",
            "..\\\\x.safetensors",
            "C:x.safetensors",
            "..",
            ".",
            "",
            "x\\u0000.safetensors",
            "x.bin",
        ] {
            let result = read(&format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#));
            assert!(
                matches!(result, Err(ModelError::Malformed { .. })),
                "{name}: {result:?}"
            );
        }
    }

    #[test]
    fn an_index_of_nothing_or_of_too_much_is_refused() {
        assert!(matches!(
            read(r#"{"weight_map":{}}"#),
            Err(ModelError::Malformed { .. })
        ));
        let many: Vec<String> = (0..=MAX_SHARDS)
            .map(|i| format!(r#""t{i}":"{i}.safetensors""#))
            .collect();
        let many = format!(r#"{{"weight_map":{{{}}}}}"#, many.join(","));
        assert!(matches!(read(&many), Err(ModelError::Malformed { .. })));
    }

    #[test]
    fn what_is_no_index_is_a_json_error() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"weight_map":{"a":1}}"#,
            r#"{"weight_map":{"a":"x","a":"y"}}"#,
        ] {
            assert!(matches!(read(json), Err(ModelError::Json { .. })), "{json}");
        }
    }
}
