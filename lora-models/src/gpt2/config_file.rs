//! `config.json` as transformers writes it, mirrored.

use super::Gpt2Config;
use crate::ModelError;
use crate::activation::Activation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// transformers understands either name of these; a file that uses the left one must not be read
/// with the default of the right one.
const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
];

/// Keys that change what is computed in a way that is not supported, unless they are off.
const REFUSED: &[(&str, &str)] = &[
    ("add_cross_attention", "false: a decoder without an encoder"),
    ("quantization_config", "no such key: weights in floats"),
];

/// The keys that have a meaning here. `reorder_and_upcast_attn` is not among them: it is another
/// order of the same arithmetic.
#[derive(Serialize, Deserialize)]
#[serde(default = "ConfigFile::defaults")]
pub(super) struct ConfigFile {
    model_type: Option<String>,
    vocab_size: usize,
    n_positions: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    activation_function: String,
    resid_pdrop: f64,
    embd_pdrop: f64,
    attn_pdrop: f64,
    layer_norm_epsilon: f64,
    initializer_range: f64,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    tie_word_embeddings: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
    pad_token_id: Option<u32>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl ConfigFile {
    /// Reads the keys of an object.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for what is not computed here, [`ModelError::Json`] for a
    /// value of the wrong kind.
    pub(super) fn parse(path: &Path, mut object: Map<String, Value>) -> Result<Self, ModelError> {
        for &(key, expected) in REFUSED {
            match object.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(value) => return Err(unsupported(path, key, value.to_string(), expected)),
            }
        }
        for &(alias, name) in ALIASES {
            let Some(value) = object.shift_remove(alias) else {
                continue;
            };
            match object.get(name) {
                Some(other) if *other != value => {
                    let expected = format!("the same as `{name}`, {other}");
                    return Err(unsupported(path, alias, value.to_string(), expected));
                }
                _ => object.insert(name.into(), value),
            };
        }
        serde_json::from_value(Value::Object(object)).map_err(|error| ModelError::Json {
            path: path.to_path_buf(),
            message: error.to_string(),
        })
    }

    /// The configuration that the file describes.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for another model, another activation, or a value outside
    /// its range.
    pub(super) fn into_config(self, path: &Path) -> Result<Gpt2Config, ModelError> {
        if self.model_type.as_deref() != Some("gpt2") {
            let found = self.model_type.unwrap_or_else(|| "not there".into());
            return Err(unsupported(path, "model_type", found, "gpt2"));
        }
        let activation = Activation::from_name(&self.activation_function);
        let Some(activation_function) = activation else {
            let expected = Activation::NAMES.join(", ");
            let found = self.activation_function;
            return Err(unsupported(path, "activation_function", found, expected));
        };
        let mut other = self.other;
        // Kept so that an export names the function as its file did.
        other.insert(
            "activation_function".into(),
            Value::from(self.activation_function),
        );
        let config = Gpt2Config {
            vocab_size: self.vocab_size,
            n_positions: self.n_positions,
            n_embd: self.n_embd,
            n_layer: self.n_layer,
            n_head: self.n_head,
            n_inner: self.n_inner,
            activation_function,
            resid_pdrop: self.resid_pdrop,
            embd_pdrop: self.embd_pdrop,
            attn_pdrop: self.attn_pdrop,
            layer_norm_epsilon: self.layer_norm_epsilon,
            initializer_range: self.initializer_range,
            scale_attn_weights: self.scale_attn_weights,
            scale_attn_by_inverse_layer_idx: self.scale_attn_by_inverse_layer_idx,
            tie_word_embeddings: self.tie_word_embeddings,
            bos_token_id: self.bos_token_id,
            eos_token_ids: match self.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
            pad_token_id: self.pad_token_id,
            other,
        };
        config.validate_at(path)?;
        Ok(config)
    }

    /// The object of a configuration.
    pub(super) fn write(config: &Gpt2Config) -> Map<String, Value> {
        match serde_json::to_value(Self::of(config)) {
            Ok(Value::Object(object)) => object,
            // A struct of numbers, strings and JSON always has the form of an object.
            _ => Map::new(),
        }
    }

    /// transformers' defaults. A file must say of which model it is.
    fn defaults() -> Self {
        Self {
            model_type: None,
            ..Self::of(&Gpt2Config::default())
        }
    }

    fn of(config: &Gpt2Config) -> Self {
        let mut other = config.other.clone();
        let named = other.shift_remove("activation_function");
        let same = |name: &String| Activation::from_name(name) == Some(config.activation_function);
        let activation_function = match named {
            Some(Value::String(name)) if same(&name) => name,
            _ => config.activation_function.name().into(),
        };
        Self {
            model_type: Some("gpt2".into()),
            vocab_size: config.vocab_size,
            n_positions: config.n_positions,
            n_embd: config.n_embd,
            n_layer: config.n_layer,
            n_head: config.n_head,
            n_inner: config.n_inner,
            activation_function,
            resid_pdrop: config.resid_pdrop,
            embd_pdrop: config.embd_pdrop,
            attn_pdrop: config.attn_pdrop,
            layer_norm_epsilon: config.layer_norm_epsilon,
            initializer_range: config.initializer_range,
            scale_attn_weights: config.scale_attn_weights,
            scale_attn_by_inverse_layer_idx: config.scale_attn_by_inverse_layer_idx,
            tie_word_embeddings: config.tie_word_embeddings,
            bos_token_id: config.bos_token_id,
            eos_token_id: match config.eos_token_ids.as_slice() {
                [] => None,
                [id] => Some(OneOrMany::One(*id)),
                ids => Some(OneOrMany::Many(ids.to_vec())),
            },
            pad_token_id: config.pad_token_id,
            other,
        }
    }
}

fn unsupported(path: &Path, key: &str, value: String, expected: impl Into<String>) -> ModelError {
    ModelError::UnsupportedConfig {
        path: path.to_path_buf(),
        key: key.into(),
        value,
        expected: expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Gpt2Config, ModelError> {
        let Value::Object(object) = value else {
            panic!("{value}")
        };
        let path = Path::new("config.json");
        ConfigFile::parse(path, object)?.into_config(path)
    }

    fn refused_key(value: Value) -> String {
        match read(value) {
            Err(ModelError::UnsupportedConfig { key, .. }) => key,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_said_has_transformers_default() {
        let mut config = read(json!({"model_type": "gpt2"})).unwrap();
        config.other.clear();
        assert_eq!(config, Gpt2Config::default());
    }

    #[test]
    fn other_keys_and_the_activations_name_come_back() {
        let config = read(json!({
            "model_type": "gpt2", "n_ctx": 1024, "activation_function": "gelu_fast",
            "eos_token_id": [3, 4], "n_embd": 32, "n_head": 2, "vocab_size": 10, "task": {"a": [1]},
        }))
        .unwrap();
        assert_eq!(config.eos_token_ids, [3, 4]);
        let written = config.to_json();
        assert_eq!(written["activation_function"], "gelu_fast");
        assert_eq!(written["task"], json!({"a": [1]}));
        assert_eq!(written["n_ctx"], 1024);
        assert_eq!(read(Value::Object(written)).unwrap(), config);

        let mut changed = config;
        changed.activation_function = Activation::Relu;
        assert_eq!(changed.to_json()["activation_function"], "relu");
    }

    #[test]
    fn what_is_not_computed_here_is_refused_by_name() {
        assert_eq!(refused_key(json!({})), "model_type");
        assert_eq!(refused_key(json!({"model_type": "gpt_neo"})), "model_type");
        for (key, value) in [
            ("activation_function", json!("quick_gelu")),
            ("add_cross_attention", json!(true)),
            ("quantization_config", json!({"bits": 4})),
            ("n_head", json!(5)),
        ] {
            assert_eq!(refused_key(json!({"model_type": "gpt2", key: value})), key);
        }
        let wrong_kind = read(json!({"model_type": "gpt2", "n_embd": "768"}));
        assert!(matches!(wrong_kind, Err(ModelError::Json { .. })));
    }

    #[test]
    fn the_other_names_of_the_sizes_are_understood() {
        let config = read(json!({
            "model_type": "gpt2", "hidden_size": 64, "num_attention_heads": 4,
            "num_hidden_layers": 3, "max_position_embeddings": 128, "n_embd": 64,
        }))
        .unwrap();
        let sizes = [
            config.n_embd,
            config.n_head,
            config.n_layer,
            config.n_positions,
        ];
        assert_eq!(sizes, [64, 4, 3, 128]);
        assert_eq!(
            refused_key(json!({"model_type": "gpt2", "hidden_size": 64, "n_embd": 32})),
            "hidden_size"
        );
    }
}
