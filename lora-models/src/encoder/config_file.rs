//! Reader for the `config.json` of an encoder.

use super::config::{Disentangled, EncoderConfig, EncoderFamily, PositionTerms, RelativeConv};
use super::{HeadKind, HeadedDecoder, Labels, config_check};
use crate::ModelError;
use crate::activation::Activation;
use crate::checkpoint::bounded::read_json;
use crate::config_keys::ConfigKeys;
use crate::decoder::DecoderConfig;
use crate::export::CONFIG_FILE;
use crate::gpt2::Gpt2Config;
use crate::pretrained::FamilyConfig;
use lora_core::files::Directory;
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
    pub fn from_dir(dir: impl Into<Directory>) -> Result<Self, ModelError> {
        let file = dir.into().file(CONFIG_FILE);
        Self::from_json(file.path(), read_json(&file, CONFIG_LIMIT)?)
    }

    /// Reads the object of a `config.json`; messages name `path`.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] and [`ModelError::Json`] as for [`from_dir`](Self::from_dir).
    pub fn from_json(path: &Path, object: Map<String, Value>) -> Result<Self, ModelError> {
        let keys = ConfigKeys::new(path, object);
        let family = family(&keys)?;
        let is_decoder = matches!(family, EncoderFamily::Gpt2 | EncoderFamily::Decoder(_));
        if !is_decoder {
            keys.require_off(REFUSED)?;
        }
        let config = match family {
            EncoderFamily::Gpt2 | EncoderFamily::Decoder(_) => decoder(path, &keys, family)?,
            EncoderFamily::Bert | EncoderFamily::Roberta | EncoderFamily::XlmRoberta => {
                bert(&keys, family)?
            }
            EncoderFamily::Deberta | EncoderFamily::DebertaV2 => deberta(&keys, family)?,
        };
        config_check::check(path, &config)?;
        Ok(Self {
            file: keys.into_object(),
            ..config
        })
    }
}

fn bert(keys: &ConfigKeys<'_>, family: EncoderFamily) -> Result<EncoderConfig, ModelError> {
    let kind: String = keys.or("position_embedding_type", "absolute".into())?;
    if kind != "absolute" {
        return Err(keys.refuse("position_embedding_type", kind, "absolute"));
    }
    Ok(EncoderConfig {
        classifier_dropout: keys.get("classifier_dropout")?,
        ..common(keys, family)?
    })
}

fn deberta(keys: &ConfigKeys<'_>, family: EncoderFamily) -> Result<EncoderConfig, ModelError> {
    let config = common(keys, family)?;
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
        embedding_size: keys.or("embedding_size", config.hidden_size)?,
        classifier_dropout: keys.get("cls_dropout")?,
        pooler_dropout: keys.or("pooler_dropout", 0.0)?,
        pooler_act: keys.activation("pooler_hidden_act", "gelu")?,
        position_embeddings: keys.or("position_biased_input", true)?,
        disentangled: Some(disentangled(keys, &config)?),
        ..config
    })
}

fn disentangled(keys: &ConfigKeys<'_>, config: &EncoderConfig) -> Result<Disentangled, ModelError> {
    // A value below 1 means "not given".
    let count = |key: &str| -> Result<Option<usize>, ModelError> {
        let value = usize::try_from(keys.or(key, 0_i64)?).unwrap_or(0);
        Ok((value > 0).then_some(value))
    };
    let mut options = Disentangled {
        relative: keys.or("relative_attention", false)?,
        terms: position_terms(keys)?,
        max_distance: count("max_relative_positions")?.unwrap_or(config.max_position_embeddings),
        buckets: None,
        share_att_key: false,
        norm_embeddings: false,
        conv: None,
    };
    if config.family == EncoderFamily::DebertaV2 {
        options.buckets = count("position_buckets")?;
        options.share_att_key = keys.or("share_att_key", false)?;
        let norm: String = keys.or("norm_rel_ebd", "none".into())?;
        for word in norm.split('|') {
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

/// Reads a decoder, whose head reads the last token.
fn decoder(
    path: &Path,
    keys: &ConfigKeys<'_>,
    family: EncoderFamily,
) -> Result<EncoderConfig, ModelError> {
    let object = keys.object().clone();
    let mut decoder = match family {
        EncoderFamily::Decoder(_) => {
            HeadedDecoder::Decoder(DecoderConfig::from_json(path, object)?)
        }
        _ => HeadedDecoder::Gpt2(Gpt2Config::from_json(path, object)?),
    };
    // A head that was trained without a padding token keeps reading the last token, whichever it is.
    if HeadKind::of_class(keys.object()).is_none() {
        decoder.set_missing_padding();
    }
    let sizes = decoder.sizes();
    if !keys.or("token_classification_bias", true)? {
        return Err(keys.refuse("token_classification_bias", false, "true"));
    }
    let base = match &decoder {
        HeadedDecoder::Gpt2(config) => EncoderConfig {
            intermediate_size: config.inner(),
            hidden_act: config.activation_function,
            hidden_dropout: config.embd_pdrop,
            attention_dropout: config.attn_pdrop,
            classifier_dropout: keys.get("classifier_dropout")?,
            initializer_range: config.initializer_range,
            layer_norm_eps: config.layer_norm_epsilon,
            ..common(keys, family)?
        },
        HeadedDecoder::Decoder(config) => EncoderConfig {
            intermediate_size: config.intermediate_size,
            hidden_act: config.activation,
            hidden_dropout: config.residual_dropout,
            attention_dropout: config.attention_dropout,
            classifier_dropout: match keys.get("classifier_dropout")? {
                Some(dropout) => Some(dropout),
                None => Some(keys.or("hidden_dropout", 0.1)?),
            },
            initializer_range: config.initializer_range,
            layer_norm_eps: config.norm_epsilon,
            ..common(keys, family)?
        },
    };
    Ok(EncoderConfig {
        family,
        vocab_size: sizes.vocab_size,
        embedding_size: sizes.d_model,
        hidden_size: sizes.d_model,
        num_hidden_layers: sizes.layers,
        num_attention_heads: sizes.heads,
        max_position_embeddings: sizes.max_length,
        pad_token_id: decoder.pad_token_id().unwrap_or(0),
        decoder: Some(decoder),
        ..base
    })
}

/// Reads what all families have, with the default values of transformers.
fn common(keys: &ConfigKeys<'_>, family: EncoderFamily) -> Result<EncoderConfig, ModelError> {
    let [
        vocab_size,
        hidden_size,
        layers,
        heads,
        intermediate_size,
        types,
    ]: [usize; 6] = match family {
        EncoderFamily::Bert => [30522, 768, 12, 12, 3072, 2],
        EncoderFamily::Roberta | EncoderFamily::XlmRoberta => [50265, 768, 12, 12, 3072, 2],
        EncoderFamily::Deberta => [50265, 768, 12, 12, 3072, 0],
        // The sizes of a decoder are read by themselves.
        EncoderFamily::DebertaV2 | EncoderFamily::Gpt2 | EncoderFamily::Decoder(_) => {
            [128_100, 1536, 24, 24, 6144, 0]
        }
    };
    let layer_norm_eps = if types == 0 { 1e-7 } else { 1e-12 };
    let hidden_size = keys.or("hidden_size", hidden_size)?;
    Ok(EncoderConfig {
        family,
        vocab_size: keys.or("vocab_size", vocab_size)?,
        embedding_size: hidden_size,
        hidden_size,
        num_hidden_layers: keys.or("num_hidden_layers", layers)?,
        num_attention_heads: keys.or("num_attention_heads", heads)?,
        intermediate_size: keys.or("intermediate_size", intermediate_size)?,
        hidden_act: keys.activation("hidden_act", "gelu")?,
        hidden_dropout: keys.or("hidden_dropout_prob", 0.1)?,
        attention_dropout: keys.or("attention_probs_dropout_prob", 0.1)?,
        classifier_dropout: None,
        pooler_dropout: 0.0,
        pooler_act: Activation::Tanh,
        max_position_embeddings: keys.or("max_position_embeddings", 512)?,
        position_embeddings: true,
        type_vocab_size: keys.or("type_vocab_size", types)?,
        initializer_range: keys.or("initializer_range", 0.02)?,
        layer_norm_eps: keys.or("layer_norm_eps", layer_norm_eps)?,
        pad_token_id: keys.or("pad_token_id", u32::from(family.is_roberta()))?,
        disentangled: None,
        decoder: None,
        labels: Labels::read(keys)?,
        file: Map::new(),
    })
}

/// Reads the family, which `model_type` names.
fn family(keys: &ConfigKeys<'_>) -> Result<EncoderFamily, ModelError> {
    let name: String = keys.or("model_type", "not there".into())?;
    EncoderFamily::from_model_type(&name).ok_or_else(|| {
        let all = EncoderFamily::ALL.map(EncoderFamily::model_type);
        keys.refuse("model_type", name, all.join(", "))
    })
}

/// Reads the terms of the attention scores: `"c2p|p2c"` or `["c2p", "p2c"]`.
fn position_terms(keys: &ConfigKeys<'_>) -> Result<PositionTerms, ModelError> {
    let words: Vec<String> = match keys.object().get("pos_att_type") {
        Some(Value::String(text)) => text.split('|').map(String::from).collect(),
        _ => keys.or("pos_att_type", Vec::new())?,
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
        EncoderConfig::from_json(Path::new("config.json"), json.as_object().unwrap().clone())
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
