//! Reader for the `config.json` of an encoder.

use super::config::{Disentangled, EncoderConfig, EncoderFamily, PositionTerms, RelativeConv};
use super::{Labels, config_check};
use crate::ModelError;
use crate::activation::Activation;
use crate::checkpoint::bounded::read_json;
use crate::config_keys::ConfigKeys;
use crate::export::CONFIG_FILE;
use serde_json::{Map, Value};
use std::path::Path;

/// Limit for `config.json`, in bytes; those with many labels have some 100 kB.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Options without support, each with the value that it must have.
const REFUSED: &[(&str, &str)] = &[
    ("add_cross_attention", "false: an encoder without a decoder"),
    ("is_decoder", "false: an encoder"),
    (
        "quantization_config",
        "no such key: weights that are not quantized",
    ),
    ("talking_head", "false"),
];

impl EncoderConfig {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for another model, a value outside its range, or an option without support;
    /// [`ModelError::Json`], [`ModelError::TooLarge`] and [`ModelError::Io`] if the file cannot be read.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = dir.as_ref().join(CONFIG_FILE);
        Self::from_json(&path, read_json(&path, CONFIG_LIMIT)?)
    }

    /// Reads the object of a `config.json`; messages name `path`.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] and [`ModelError::Json`] as for [`from_dir`](Self::from_dir).
    pub fn from_json(path: &Path, object: Map<String, Value>) -> Result<Self, ModelError> {
        parse(path, object)
    }
}

/// Reads a configuration from the object of a file.
fn parse(path: &Path, object: Map<String, Value>) -> Result<EncoderConfig, ModelError> {
    let keys = ConfigKeys::new(path, object);
    keys.require_off(REFUSED)?;
    let family = family(&keys)?;
    let config = match family {
        EncoderFamily::Bert | EncoderFamily::Roberta | EncoderFamily::XlmRoberta => {
            bert(&keys, family)?
        }
        EncoderFamily::Deberta | EncoderFamily::DebertaV2 => deberta(&keys, family)?,
    };
    config_check::check(path, &config)?;
    Ok(EncoderConfig {
        file: keys.into_object(),
        ..config
    })
}

fn bert(keys: &ConfigKeys<'_>, family: EncoderFamily) -> Result<EncoderConfig, ModelError> {
    let kind: Option<String> = keys.get("position_embedding_type")?;
    if kind.as_deref().is_some_and(|kind| kind != "absolute") {
        let found = kind.unwrap_or_default();
        return Err(keys.refuse("position_embedding_type", found, "absolute"));
    }
    let standard = Defaults {
        vocab_size: if family.is_roberta() { 50265 } else { 30522 },
        pad_token_id: u32::from(family.is_roberta()),
        ..BERT
    };
    Ok(EncoderConfig {
        classifier_dropout: keys.get("classifier_dropout")?,
        pooler_act: Activation::Tanh,
        ..common(keys, family, &standard)?
    })
}

fn deberta(keys: &ConfigKeys<'_>, family: EncoderFamily) -> Result<EncoderConfig, ModelError> {
    let second = family == EncoderFamily::DebertaV2;
    let standard = if second { DEBERTA_V2 } else { DEBERTA };
    let config = common(keys, family, &standard)?;
    // `check` refuses zero heads later, with the other sizes.
    let head_size = config.hidden_size.checked_div(config.num_attention_heads);
    for (key, width) in [
        ("pooler_hidden_size", config.hidden_size),
        ("attention_head_size", head_size.unwrap_or(0)),
    ] {
        let found: Option<usize> = keys.get(key)?;
        if let Some(found) = found.filter(|&found| found != width) {
            return Err(keys.refuse(key, found, width.to_string()));
        }
    }
    Ok(EncoderConfig {
        embedding_size: keys.get("embedding_size")?.unwrap_or(config.hidden_size),
        classifier_dropout: keys.get("cls_dropout")?,
        pooler_dropout: keys.get("pooler_dropout")?.unwrap_or(0.0),
        pooler_act: keys.activation("pooler_hidden_act", "gelu")?,
        position_embeddings: keys.get("position_biased_input")?.unwrap_or(true),
        disentangled: Some(disentangled(keys, second, config.max_position_embeddings)?),
        ..config
    })
}

fn disentangled(
    keys: &ConfigKeys<'_>,
    second: bool,
    positions: usize,
) -> Result<Disentangled, ModelError> {
    // A value below 1 means "not given".
    let count = |key: &str| -> Result<Option<usize>, ModelError> {
        let value: Option<i64> = keys.get(key)?;
        Ok(value
            .and_then(|value| usize::try_from(value).ok())
            .filter(|&value| value > 0))
    };
    let mut options = Disentangled {
        relative: keys.get("relative_attention")?.unwrap_or(false),
        terms: position_terms(keys)?,
        max_distance: count("max_relative_positions")?.unwrap_or(positions),
        buckets: None,
        share_att_key: false,
        norm_embeddings: false,
        conv: None,
    };
    if second {
        options.buckets = count("position_buckets")?;
        options.share_att_key = keys.get("share_att_key")?.unwrap_or(false);
        let norm: Option<String> = keys.get("norm_rel_ebd")?;
        for word in norm.iter().flat_map(|norm| norm.split('|')) {
            match word.trim().to_lowercase().as_str() {
                "none" => {}
                "layer_norm" => options.norm_embeddings = true,
                other => {
                    return Err(keys.refuse("norm_rel_ebd", other, "none or layer_norm"));
                }
            }
        }
        if let Some(kernel) = count("conv_kernel_size")? {
            options.conv = Some(RelativeConv {
                kernel,
                groups: count("conv_groups")?.unwrap_or(1),
                activation: keys.activation("conv_act", "tanh")?,
            });
        }
    }
    Ok(options)
}

/// Default values of transformers that differ between families.
struct Defaults {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    type_vocab_size: usize,
    layer_norm_eps: f64,
    pad_token_id: u32,
}

const BERT: Defaults = Defaults {
    vocab_size: 30522,
    hidden_size: 768,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    intermediate_size: 3072,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
    pad_token_id: 0,
};

const DEBERTA: Defaults = Defaults {
    vocab_size: 50265,
    type_vocab_size: 0,
    layer_norm_eps: 1e-7,
    ..BERT
};

const DEBERTA_V2: Defaults = Defaults {
    vocab_size: 128100,
    hidden_size: 1536,
    num_hidden_layers: 24,
    num_attention_heads: 24,
    intermediate_size: 6144,
    ..DEBERTA
};

fn common(
    keys: &ConfigKeys<'_>,
    family: EncoderFamily,
    standard: &Defaults,
) -> Result<EncoderConfig, ModelError> {
    let size = |key: &str, standard: usize| -> Result<usize, ModelError> {
        Ok(keys.get(key)?.unwrap_or(standard))
    };
    let hidden_size = size("hidden_size", standard.hidden_size)?;
    Ok(EncoderConfig {
        family,
        vocab_size: size("vocab_size", standard.vocab_size)?,
        embedding_size: hidden_size,
        hidden_size,
        num_hidden_layers: size("num_hidden_layers", standard.num_hidden_layers)?,
        num_attention_heads: size("num_attention_heads", standard.num_attention_heads)?,
        intermediate_size: size("intermediate_size", standard.intermediate_size)?,
        hidden_act: keys.activation("hidden_act", "gelu")?,
        hidden_dropout: keys.get("hidden_dropout_prob")?.unwrap_or(0.1),
        attention_dropout: keys.get("attention_probs_dropout_prob")?.unwrap_or(0.1),
        classifier_dropout: None,
        pooler_dropout: 0.0,
        pooler_act: Activation::Tanh,
        max_position_embeddings: size("max_position_embeddings", 512)?,
        position_embeddings: true,
        type_vocab_size: size("type_vocab_size", standard.type_vocab_size)?,
        initializer_range: keys.get("initializer_range")?.unwrap_or(0.02),
        layer_norm_eps: keys
            .get("layer_norm_eps")?
            .unwrap_or(standard.layer_norm_eps),
        pad_token_id: keys.get("pad_token_id")?.unwrap_or(standard.pad_token_id),
        disentangled: None,
        labels: Labels::read(keys)?,
        file: Map::new(),
    })
}

/// Reads the family, which `model_type` names.
fn family(keys: &ConfigKeys<'_>) -> Result<EncoderFamily, ModelError> {
    let name: Option<String> = keys.get("model_type")?;
    let family = name.as_deref().and_then(EncoderFamily::from_model_type);
    family.ok_or_else(|| {
        let all = EncoderFamily::ALL.map(EncoderFamily::model_type);
        let found = name.as_deref().unwrap_or("not there");
        keys.refuse("model_type", found, all.join(", "))
    })
}

/// Reads the terms of the attention scores: `"c2p|p2c"` or `["c2p", "p2c"]`.
fn position_terms(keys: &ConfigKeys<'_>) -> Result<PositionTerms, ModelError> {
    let words: Vec<String> = match keys.object().get("pos_att_type") {
        Some(Value::String(text)) => text.split('|').map(String::from).collect(),
        _ => keys.get("pos_att_type")?.unwrap_or_default(),
    };
    let mut terms = PositionTerms::default();
    for word in &words {
        match word.trim().to_lowercase().as_str() {
            "c2p" => terms.c2p = true,
            "p2c" => terms.p2c = true,
            "" | "none" => {}
            other => return Err(keys.refuse("pos_att_type", other, "c2p and p2c")),
        }
    }
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: Value) -> Result<EncoderConfig, ModelError> {
        parse(Path::new("config.json"), json.as_object().unwrap().clone())
    }

    #[test]
    fn what_is_not_said_is_transformers_default() {
        let config = read(json!({"model_type": "bert"})).unwrap();
        assert_eq!((config.vocab_size, config.hidden_size), (30522, 768));
        assert_eq!(config.max_length(), 512);
        let config =
            read(json!({"model_type": "roberta", "max_position_embeddings": 514})).unwrap();
        assert_eq!((config.pad_token_id, config.max_length()), (1, 512));
        let config = read(json!({"model_type": "deberta-v2"})).unwrap();
        assert_eq!((config.num_hidden_layers, config.type_vocab_size), (24, 0));
        assert!(!config.disentangled.unwrap().relative);
    }

    #[test]
    fn debertas_options_are_read_in_both_spellings() {
        let config = read(json!({
            "model_type": "deberta-v2", "relative_attention": true, "pos_att_type": "p2c|c2p",
            "position_buckets": 256, "max_relative_positions": -1, "norm_rel_ebd": "layer_norm",
            "share_att_key": true, "conv_kernel_size": 3, "conv_act": "gelu"
        }))
        .unwrap();
        let options = config.disentangled.unwrap();
        assert_eq!(options.terms.count(), 2);
        assert_eq!((options.max_distance, options.span()), (512, 256));
        assert!(options.norm_embeddings && options.share_att_key);
        assert_eq!(options.conv.unwrap().activation, Activation::Gelu);
        let list =
            json!({"model_type": "deberta", "pos_att_type": ["c2p"], "max_relative_positions": 9});
        let options = read(list).unwrap().disentangled.unwrap();
        assert!(options.terms.c2p && !options.terms.p2c && options.span() == 9);
    }

    #[test]
    fn what_is_not_computed_here_is_refused_by_its_key() {
        for (json, key) in [
            (json!({}), "model_type"),
            (json!({"model_type": "electra"}), "model_type"),
            (
                json!({"model_type": "bert", "is_decoder": true}),
                "is_decoder",
            ),
            (
                json!({"model_type": "bert", "position_embedding_type": "relative_key"}),
                "position_embedding_type",
            ),
            (
                json!({"model_type": "bert", "hidden_act": "quick_gelu"}),
                "hidden_act",
            ),
            (
                json!({"model_type": "bert", "hidden_size": 10}),
                "hidden_size",
            ),
            (json!({"model_type": "bert", "vocab_size": 0}), "vocab_size"),
            (
                json!({"model_type": "bert", "hidden_dropout_prob": 1.0}),
                "hidden_dropout_prob",
            ),
            (
                json!({"model_type": "roberta", "max_position_embeddings": 2}),
                "max_position_embeddings",
            ),
            (
                json!({"model_type": "deberta-v2", "pos_att_type": "p2p"}),
                "pos_att_type",
            ),
            (
                json!({"model_type": "deberta-v2", "norm_rel_ebd": "batch"}),
                "norm_rel_ebd",
            ),
            (
                json!({"model_type": "deberta-v2", "conv_kernel_size": 4}),
                "conv_kernel_size",
            ),
            (
                json!({"model_type": "deberta-v2", "position_buckets": 2}),
                "position_buckets",
            ),
            (
                json!({"model_type": "deberta-v2", "pooler_hidden_size": 7}),
                "pooler_hidden_size",
            ),
            (
                json!({"model_type": "deberta", "relative_attention": true}),
                "pos_att_type",
            ),
            // Divided by before it was looked at, once.
            (
                json!({"model_type": "deberta-v2", "num_attention_heads": 0}),
                "num_attention_heads",
            ),
            (
                json!({"model_type": "roberta", "pad_token_id": u32::MAX}),
                "max_position_embeddings",
            ),
        ] {
            match read(json.clone()) {
                Err(ModelError::UnsupportedConfig { key: found, .. }) => {
                    assert_eq!(found, key, "{json}")
                }
                other => panic!("{json}: {other:?}"),
            }
        }
        assert!(matches!(
            read(json!({"model_type": "bert", "hidden_size": "wide"})),
            Err(ModelError::Json { .. })
        ));
    }
}
