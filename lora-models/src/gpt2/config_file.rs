//! Reader and writer for the `config.json` of a GPT-2.

use super::config::Gpt2Config;
use crate::ModelError;
use crate::activation::Activation;
use crate::config_keys::{ConfigKeys, unsupported};
use crate::lm::TokenIds;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Pairs of names that transformers reads as one key: a file with the left name must not get the default of the right
/// one.
const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
];

/// Options without support, each with the value that it must have. `reorder_and_upcast_attn` is not one of them: it
/// changes the order of the same arithmetic.
const REFUSED: &[(&str, &str)] = &[
    ("add_cross_attention", "false: a decoder without an encoder"),
    (
        "quantization_config",
        "no such key: weights that are not quantized",
    ),
];

/// Key of the activation function. The configuration keeps the name in the file, so that an export writes the same
/// name.
const ACTIVATION: &str = "activation_function";

/// Defines the reader and the writer of the fields that have the names of their keys.
macro_rules! plain_fields {
    ($($field:ident)*) => {
        /// Reads the fields that have the names of their keys; the others keep their defaults.
        fn read_fields(keys: &ConfigKeys<'_>) -> Result<Gpt2Config, ModelError> {
            let default = Gpt2Config::default();
            Ok(Gpt2Config {
                $($field: keys.get_or(stringify!($field), default.$field)?,)*
                ..default
            })
        }

        /// Returns the fields that have the names of their keys.
        fn fields(config: &Gpt2Config) -> Vec<(&'static str, Value)> {
            vec![$((stringify!($field), json!(config.$field)),)*]
        }
    };
}

plain_fields! {
    vocab_size n_positions n_embd n_layer n_head n_inner resid_pdrop embd_pdrop attn_pdrop layer_norm_epsilon
    initializer_range scale_attn_weights scale_attn_by_inverse_layer_idx tie_word_embeddings bos_token_id pad_token_id
}

impl Gpt2Config {
    /// Returns the object of `config.json`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut other = self.other.clone();
        let name = other.shift_remove(ACTIVATION);
        let activation = self.activation_function;
        let is_same = |name: &&str| Activation::from_name(name) == Some(activation);
        let name = name.as_ref().and_then(Value::as_str).filter(is_same);
        let eos_token_id = TokenIds::json(&self.eos_token_ids);
        let mut known = vec![("model_type", json!("gpt2"))];
        known.extend(fields(self));
        known.push((ACTIVATION, json!(name.unwrap_or(activation.name()))));
        known.push(("eos_token_id", eos_token_id));
        let known = known.into_iter().map(|(key, value)| (key.into(), value));
        known.chain(other).collect()
    }
}

/// Reads a configuration from the object of a file.
///
/// # Errors
/// [`ModelError::UnsupportedConfig`] for another model, an option without support or a value outside its range,
/// [`ModelError::Json`] for a value of another type.
pub(super) fn parse(path: &Path, object: Map<String, Value>) -> Result<Gpt2Config, ModelError> {
    let keys = ConfigKeys::new(path, without_aliases(path, object)?);
    keys.require_off(REFUSED)?;
    let model_type: Option<String> = keys.get("model_type")?;
    if model_type.as_deref() != Some("gpt2") {
        let found = model_type.as_deref().unwrap_or("not there");
        return Err(keys.refuse("model_type", found, "gpt2"));
    }
    let mut config = read_fields(&keys)?;
    let default_name = config.activation_function.name();
    config.activation_function = keys.activation(ACTIVATION, default_name)?;
    let default_ids = TokenIds::Many(config.eos_token_ids);
    config.eos_token_ids = keys.get_or("eos_token_id", default_ids)?.into_list();
    config.validate_at(path)?;

    let mut other = keys.into_object();
    let name = other.shift_remove(ACTIVATION);
    for key in config.to_json().keys() {
        other.shift_remove(key);
    }
    let name = name.unwrap_or_else(|| default_name.into());
    other.insert(ACTIVATION.into(), name);
    Ok(Gpt2Config { other, ..config })
}

/// Replaces aliases by their keys.
fn without_aliases(
    path: &Path,
    mut object: Map<String, Value>,
) -> Result<Map<String, Value>, ModelError> {
    for &(alias, name) in ALIASES {
        let Some(value) = object.shift_remove(alias) else {
            continue;
        };
        match object.get(name) {
            Some(other) if *other != value => {
                let expected = format!("the same as `{name}`, {other}");
                return Err(unsupported(path, alias, value, expected));
            }
            _ => object.insert(name.into(), value),
        };
    }
    Ok(object)
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
        parse(path, object)
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
