//! Reader and writer for the `config.json` of a GPT-2.

use super::config::{CONFIG_FILE, Gpt2Config};
use crate::ModelError;
use crate::activation::Activation;
use crate::checkpoint::bounded::read_json;
use crate::config_keys::{ConfigKeys, unsupported};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Limit for `config.json`, in bytes.
const CONFIG_LIMIT: u64 = 1 << 20;

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

/// One token id, several or none.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(u32),
    Many(Vec<u32>),
    None,
}

impl Gpt2Config {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for another model than a GPT-2, a value outside its range, or an option
    /// without support; [`ModelError::Json`], [`ModelError::TooLarge`] and [`ModelError::Io`] if the file cannot be
    /// read.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = dir.as_ref().join(CONFIG_FILE);
        parse(&path, read_json(&path, CONFIG_LIMIT)?)
    }

    /// Returns the object of `config.json`.
    pub fn to_json(&self) -> Map<String, Value> {
        write(self)
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
    let default = Gpt2Config::default();
    let default_name = default.activation_function.name();
    let config = Gpt2Config {
        vocab_size: keys.get_or("vocab_size", default.vocab_size)?,
        n_positions: keys.get_or("n_positions", default.n_positions)?,
        n_embd: keys.get_or("n_embd", default.n_embd)?,
        n_layer: keys.get_or("n_layer", default.n_layer)?,
        n_head: keys.get_or("n_head", default.n_head)?,
        n_inner: keys.get("n_inner")?,
        activation_function: keys.activation(ACTIVATION, default_name)?,
        resid_pdrop: keys.get_or("resid_pdrop", default.resid_pdrop)?,
        embd_pdrop: keys.get_or("embd_pdrop", default.embd_pdrop)?,
        attn_pdrop: keys.get_or("attn_pdrop", default.attn_pdrop)?,
        layer_norm_epsilon: keys.get_or("layer_norm_epsilon", default.layer_norm_epsilon)?,
        initializer_range: keys.get_or("initializer_range", default.initializer_range)?,
        scale_attn_weights: keys.get_or("scale_attn_weights", default.scale_attn_weights)?,
        scale_attn_by_inverse_layer_idx: keys.get_or(
            "scale_attn_by_inverse_layer_idx",
            default.scale_attn_by_inverse_layer_idx,
        )?,
        tie_word_embeddings: keys.get_or("tie_word_embeddings", default.tie_word_embeddings)?,
        bos_token_id: keys.get_or("bos_token_id", default.bos_token_id)?,
        eos_token_ids: match keys.get_or("eos_token_id", TokenIds::Many(default.eos_token_ids))? {
            TokenIds::One(id) => vec![id],
            TokenIds::Many(ids) => ids,
            TokenIds::None => Vec::new(),
        },
        pad_token_id: keys.get("pad_token_id")?,
        other: Map::new(),
    };
    config.validate_at(path)?;

    let mut other = keys.into_object();
    let name = other.shift_remove(ACTIVATION);
    for key in write(&config).keys() {
        other.shift_remove(key);
    }
    other.insert(
        ACTIVATION.into(),
        name.unwrap_or_else(|| default_name.into()),
    );
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

/// Builds the object of a file from a configuration.
fn write(config: &Gpt2Config) -> Map<String, Value> {
    let mut other = config.other.clone();
    let name = other.shift_remove(ACTIVATION);
    let activation = config.activation_function;
    let is_same = |name: &&str| Activation::from_name(name) == Some(activation);
    let name = name.as_ref().and_then(Value::as_str).filter(is_same);
    let eos_token_id = match config.eos_token_ids.as_slice() {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    };
    let known = [
        ("model_type", json!("gpt2")),
        ("vocab_size", json!(config.vocab_size)),
        ("n_positions", json!(config.n_positions)),
        ("n_embd", json!(config.n_embd)),
        ("n_layer", json!(config.n_layer)),
        ("n_head", json!(config.n_head)),
        ("n_inner", json!(config.n_inner)),
        (ACTIVATION, json!(name.unwrap_or(activation.name()))),
        ("resid_pdrop", json!(config.resid_pdrop)),
        ("embd_pdrop", json!(config.embd_pdrop)),
        ("attn_pdrop", json!(config.attn_pdrop)),
        ("layer_norm_epsilon", json!(config.layer_norm_epsilon)),
        ("initializer_range", json!(config.initializer_range)),
        ("scale_attn_weights", json!(config.scale_attn_weights)),
        (
            "scale_attn_by_inverse_layer_idx",
            json!(config.scale_attn_by_inverse_layer_idx),
        ),
        ("tie_word_embeddings", json!(config.tie_word_embeddings)),
        ("bos_token_id", json!(config.bos_token_id)),
        ("eos_token_id", eos_token_id),
        ("pad_token_id", json!(config.pad_token_id)),
    ];
    let known = known.map(|(key, value)| (key.to_string(), value));
    known.into_iter().chain(other).collect()
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
