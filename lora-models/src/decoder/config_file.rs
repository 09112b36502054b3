//! Reader for the `config.json` of a decoder.

use super::config::{DecoderBiases, DecoderConfig, DecoderLayer, MAX_LAYERS, Multipliers};
use super::family::{DecoderFamily, Windows};
use super::rope_file::{self, RopeSizes};
use crate::ModelError;
use crate::activation::Activation;
use crate::config_keys::{ConfigKeys, check_sizes};
use crate::lm::TokenIds;
use serde_json::{Map, Value};
use std::path::Path;

/// Options without support, each with the value that it must have.
const REFUSED: &[(&str, &str)] = &[
    ("add_cross_attention", "false: a decoder without an encoder"),
    (
        "use_bidirectional_attention",
        "false: attention to earlier tokens alone",
    ),
    (
        "quantization_config",
        "no such key: weights that are not quantized",
    ),
];

const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

/// Reads a configuration from the object of a file.
///
/// # Errors
/// [`ModelError::UnsupportedConfig`] for another model, an option without support or a value outside its range,
/// [`ModelError::Json`] for a value of another type.
pub(super) fn parse(path: &Path, object: Map<String, Value>) -> Result<DecoderConfig, ModelError> {
    let file = ConfigKeys::new(path, object);
    file.require_off(REFUSED)?;
    let model_type: Option<String> = file.get("model_type")?;
    let name = model_type.as_deref().unwrap_or("not there");
    let Some(family) = DecoderFamily::from_model_type(name) else {
        let all = DecoderFamily::ALL.map(DecoderFamily::model_type);
        return Err(file.refuse("model_type", name, all.join(", ")));
    };
    let object = file.into_object();
    let mut all = family.defaults();
    all.extend(object.clone());
    let keys = &ConfigKeys::new(path, all);
    let traits = family.traits();
    let size = |key: &str| -> Result<usize, ModelError> {
        let found: Option<usize> = keys.get(key)?;
        found.ok_or_else(|| keys.refuse(key, "null", "a whole number"))
    };
    let number = |key: &str, default: f64| keys.or::<f64>(key, default);

    let (hidden_size, heads) = (size("hidden_size")?, size("num_attention_heads")?);
    let count = size("num_hidden_layers")?;
    check_sizes(
        path,
        &[
            ("num_attention_heads", heads, usize::MAX),
            ("num_hidden_layers", count, MAX_LAYERS),
        ],
    )?;
    let head_dim = match keys.get("head_dim")? {
        Some(size) => size,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let expected = format!("a divisor of hidden_size, {hidden_size}");
            return Err(keys.refuse("num_attention_heads", heads, expected));
        }
    };
    let max_position_embeddings = size("max_position_embeddings")?;
    let sizes = RopeSizes {
        head_dim,
        max_position_embeddings,
    };
    let ropes = rope_file::read(path, keys, family, &sizes)?;
    let layers = Layers { keys, family }.read(count, ropes.sliding.is_some())?;
    let bias = |key: &str| keys.or::<bool>(key, false);
    // Families without the key have no bias, whatever a file says.
    let attention_bias = match traits.query_bias {
        Some(_) => false,
        None => bias("attention_bias")?,
    };
    let has_mlp_bias = matches!(
        family,
        DecoderFamily::Llama | DecoderFamily::Smollm3 | DecoderFamily::Granite
    );
    let scale = match family {
        DecoderFamily::Granite => number("attention_multiplier", 1.0)?,
        DecoderFamily::Gemma2 | DecoderFamily::Gemma3Text => {
            number("query_pre_attn_scalar", 256.0)?.powf(-0.5)
        }
        _ => (head_dim as f64).powf(-0.5),
    };
    let is_gemma = matches!(
        family,
        DecoderFamily::Gemma | DecoderFamily::Gemma2 | DecoderFamily::Gemma3Text
    );
    let caps = match family {
        // As in transformers, where Gemma 3 caps its logits alone.
        DecoderFamily::Gemma2 => [
            keys.get("attn_logit_softcapping")?,
            keys.get("final_logit_softcapping")?,
        ],
        DecoderFamily::Gemma3Text => [None, keys.get("final_logit_softcapping")?],
        _ => [None, None],
    };
    let multipliers = match family {
        DecoderFamily::Granite => Multipliers {
            embedding: number("embedding_multiplier", 1.0)?,
            residual: number("residual_multiplier", 1.0)?,
            logits: number("logits_scaling", 1.0)?,
        },
        _ => Multipliers {
            // The arithmetic is in f32, so that the root is not rounded to the type of the weights.
            embedding: if is_gemma {
                f64::from((hidden_size as f32).sqrt())
            } else {
                1.0
            },
            residual: 1.0,
            logits: 1.0,
        },
    };
    let mut activation = keys.activation(traits.activation, "silu")?;
    if family == DecoderFamily::Gemma && activation == Activation::Gelu {
        // The official files say `gelu`, and mean the approximation.
        activation = Activation::GeluTanh;
    }
    let config = DecoderConfig {
        family,
        vocab_size: size("vocab_size")?,
        hidden_size,
        intermediate_size: size("intermediate_size")?,
        num_attention_heads: heads,
        num_key_value_heads: keys.or("num_key_value_heads", heads)?,
        head_dim,
        max_position_embeddings,
        layers,
        ropes: std::iter::once(ropes.full).chain(ropes.sliding).collect(),
        activation,
        norm_epsilon: number("rms_norm_eps", 1e-6)?,
        norm: traits.norm,
        placement: traits.placement,
        head_norm: traits.head_norm,
        layout: traits.layout,
        biases: DecoderBiases {
            query_key_value: traits.query_bias.unwrap_or(attention_bias),
            output: attention_bias,
            mlp: has_mlp_bias && bias("mlp_bias")?,
        },
        scale,
        score_cap: caps[0],
        logit_cap: caps[1],
        multipliers,
        attention_dropout: number("attention_dropout", 0.0)?,
        residual_dropout: match family {
            DecoderFamily::Phi3 => number("resid_pdrop", 0.0)?,
            _ => 0.0,
        },
        initializer_range: number("initializer_range", 0.02)?,
        tie_word_embeddings: keys.or("tie_word_embeddings", false)?,
        eos_token_ids: keys.or("eos_token_id", TokenIds::None)?.into_list(),
        pad_token_id: keys.get("pad_token_id")?,
        object,
    };
    config.validate_at(path)?;
    Ok(config)
}

struct Layers<'a> {
    keys: &'a ConfigKeys<'a>,
    family: DecoderFamily,
}

impl Layers<'_> {
    /// Reads windows and positions of the layers.
    fn read(&self, count: usize, ropes_by_layer: bool) -> Result<Vec<DecoderLayer>, ModelError> {
        let has_rope = self.positions(count)?;
        let slides = self.slides(count, &has_rope)?;
        let window: Option<usize> = self.keys.get("sliding_window")?;
        let layer = |(slides, has_rope): (bool, bool)| {
            let window = match (slides, window) {
                (false, _) => None,
                (true, Some(window)) if window > 0 => Some(window),
                (true, found) => {
                    let found = found.map_or("null".into(), |window| window.to_string());
                    let expected = "a number of at least 1: layers have a sliding window";
                    return Err(self.keys.refuse("sliding_window", found, expected));
                }
            };
            let rope = usize::from(ropes_by_layer && slides);
            Ok(DecoderLayer {
                window,
                rope: has_rope.then_some(rope),
            })
        };
        slides.into_iter().zip(has_rope).map(layer).collect()
    }

    /// Returns true for each layer with positions.
    fn positions(&self, count: usize) -> Result<Vec<bool>, ModelError> {
        if self.family != DecoderFamily::Smollm3 {
            return Ok(vec![true; count]);
        }
        if let Some(listed) = self.keys.get::<Vec<u8>>("no_rope_layers")? {
            if listed.len() < count {
                let expected = format!("an entry for each of the {count} layers");
                return Err(self.keys.refuse("no_rope_layers", listed.len(), expected));
            }
            return Ok(listed.into_iter().take(count).map(|has| has != 0).collect());
        }
        let interval: usize = self.keys.or("no_rope_layer_interval", 4)?;
        if interval == 0 {
            let expected = "a number of at least 1";
            return Err(self
                .keys
                .refuse("no_rope_layer_interval", interval, expected));
        }
        Ok((1..=count)
            .map(|layer| !layer.is_multiple_of(interval))
            .collect())
    }

    /// Returns true for each layer with a sliding window.
    fn slides(&self, count: usize, has_rope: &[bool]) -> Result<Vec<bool>, ModelError> {
        let windows = self.family.traits().windows;
        let has_window = self.keys.get::<usize>("sliding_window")?.is_some();
        let used = has_window && self.keys.or("use_sliding_window", false)?;
        let is_listed = matches!(
            windows,
            Windows::From | Windows::WithoutPositions | Windows::AllBut(_)
        );
        if is_listed && let Some(types) = self.keys.get::<Vec<String>>("layer_types")? {
            if types.len() < count {
                let expected = format!("an entry for each of the {count} layers");
                return Err(self.keys.refuse("layer_types", types.len(), expected));
            }
            let slides = |kind: &String| match kind.as_str() {
                SLIDING => Ok(true),
                FULL => Ok(false),
                other => {
                    let expected = format!("{FULL} or {SLIDING}");
                    Err(self.keys.refuse("layer_types", other, expected))
                }
            };
            return types.iter().take(count).map(slides).collect();
        }
        let layers = 0..count;
        Ok(match windows {
            Windows::None => vec![false; count],
            Windows::All => vec![has_window; count],
            Windows::From => {
                let first: usize = self.keys.or("max_window_layers", 28)?;
                layers.map(|layer| used && layer >= first).collect()
            }
            Windows::WithoutPositions => has_rope.iter().map(|has| used && !has).collect(),
            Windows::AllBut(every) => {
                let every = match self.family {
                    DecoderFamily::Gemma3Text => self.keys.or("sliding_window_pattern", every)?,
                    _ => every,
                };
                if every == 0 {
                    let expected = "a number of at least 1";
                    return Err(self.keys.refuse("sliding_window_pattern", every, expected));
                }
                layers
                    .map(|layer| !(layer + 1).is_multiple_of(every))
                    .collect()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<DecoderConfig, ModelError> {
        let mut object = json!({
            "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 96, "vocab_size": 100, "max_position_embeddings": 128
        });
        if let (Value::Object(object), Value::Object(own)) = (&mut object, value) {
            object.extend(own);
        }
        let Value::Object(object) = object else {
            panic!("{object}")
        };
        parse(Path::new("config.json"), object)
    }

    fn refused_key(value: Value) -> String {
        match read(value.clone()) {
            Err(ModelError::UnsupportedConfig { key, .. }) => key,
            other => panic!("{value}: {other:?}"),
        }
    }

    #[test]
    fn what_is_not_computed_here_is_refused_by_name() {
        for (key, object) in [
            ("model_type", json!({"model_type": "gemma3"})),
            ("model_type", json!({})),
            (
                "hidden_act",
                json!({"model_type": "llama", "hidden_act": "quick_gelu"}),
            ),
            (
                "quantization_config",
                json!({"model_type": "llama", "quantization_config": {"bits": 4}}),
            ),
            (
                "use_bidirectional_attention",
                json!({"model_type": "gemma", "use_bidirectional_attention": true}),
            ),
            (
                "rope_scaling.rope_type",
                json!({"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}}),
            ),
            (
                "rope_parameters.rope_type",
                json!({"model_type": "qwen2", "rope_parameters": {"rope_type": "proportional"}}),
            ),
            (
                "rope_parameters.partial_rotary_factor",
                json!({"model_type": "llama", "partial_rotary_factor": 0.5}),
            ),
            (
                "rope_parameters.partial_rotary_factor",
                json!({"model_type": "llama", "head_dim": 5}),
            ),
            (
                "rope_scaling.factor",
                json!({"model_type": "llama", "rope_scaling": {"type": "linear"}}),
            ),
            (
                "rope_parameters.rope_theta",
                json!({"model_type": "llama", "rope_theta": 0}),
            ),
            (
                "rope_scaling.short_factor",
                json!({"model_type": "phi3", "rope_scaling": {
                    "type": "longrope", "short_factor": [1.0], "long_factor": [1.0]
                }}),
            ),
            (
                "rope_parameters",
                json!({"model_type": "gemma3_text", "rope_parameters": {"rope_theta": 1e4}}),
            ),
            (
                "rope_scaling",
                json!({"model_type": "llama", "rope_scaling": "linear"}),
            ),
            (
                "num_key_value_heads",
                json!({"model_type": "llama", "num_key_value_heads": 3}),
            ),
            (
                "num_attention_heads",
                json!({"model_type": "llama", "num_attention_heads": 0}),
            ),
            (
                "num_hidden_layers",
                json!({"model_type": "llama", "num_hidden_layers": 1u64 << 40}),
            ),
            (
                "hidden_size",
                json!({"model_type": "llama", "hidden_size": null}),
            ),
            (
                "layer_types",
                json!({"model_type": "qwen3", "layer_types": vec!["chunked_attention"; 4]}),
            ),
            (
                "layer_types",
                json!({"model_type": "qwen3", "layer_types": ["full_attention"]}),
            ),
            (
                "sliding_window",
                json!({"model_type": "gemma2", "sliding_window": null}),
            ),
            (
                "no_rope_layers",
                json!({"model_type": "smollm3", "no_rope_layers": [1]}),
            ),
            (
                "no_rope_layer_interval",
                json!({"model_type": "smollm3", "no_rope_layer_interval": 0}),
            ),
            (
                "rms_norm_eps",
                json!({"model_type": "llama", "rms_norm_eps": 0.0}),
            ),
            (
                "logits_scaling",
                json!({"model_type": "granite", "logits_scaling": 0.0}),
            ),
            (
                "attention_dropout",
                json!({"model_type": "llama", "attention_dropout": 1.5}),
            ),
        ] {
            assert_eq!(refused_key(object.clone()), key, "{object}");
        }
        let wrong_kind = read(json!({"model_type": "llama", "vocab_size": "100"}));
        assert!(matches!(wrong_kind, Err(ModelError::Json { .. })));
    }

    fn windows(value: Value) -> Vec<Option<usize>> {
        let config = read(value).unwrap();
        config.layers.iter().map(|layer| layer.window).collect()
    }

    #[test]
    fn windows_are_those_of_the_family_or_of_the_file() {
        let (all, none) = (vec![Some(9); 4], vec![None; 4]);
        for (expected, object) in [
            (
                none.clone(),
                json!({"model_type": "llama", "sliding_window": 9}),
            ),
            (all, json!({"model_type": "mistral", "sliding_window": 9})),
            (vec![Some(4096); 4], json!({"model_type": "mistral"})),
            (
                none.clone(),
                json!({"model_type": "mistral", "sliding_window": null}),
            ),
            (
                none.clone(),
                json!({"model_type": "qwen2", "sliding_window": 9, "max_window_layers": 1}),
            ),
            (
                vec![None, Some(9), Some(9), Some(9)],
                json!({
                    "model_type": "qwen2", "sliding_window": 9, "max_window_layers": 1,
                    "use_sliding_window": true
                }),
            ),
            (
                vec![None, None, None, Some(9)],
                json!({"model_type": "smollm3", "sliding_window": 9, "use_sliding_window": true}),
            ),
            (
                vec![Some(9), None, Some(9), None],
                json!({"model_type": "gemma2", "sliding_window": 9}),
            ),
            (
                vec![Some(9), Some(9), Some(9), None],
                json!({"model_type": "olmo3", "sliding_window": 9}),
            ),
            (
                vec![Some(9), None, None, None],
                json!({
                    "model_type": "olmo3", "sliding_window": 9,
                    "layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention"]
                }),
            ),
        ] {
            assert_eq!(windows(object.clone()), expected, "{object}");
        }
    }

    #[test]
    fn old_and_new_keys_of_positions_mean_the_same() {
        let llama3 = json!({
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        });
        let yarn = json!({"factor": 4.0, "original_max_position_embeddings": 32});
        let long = json!({"short_factor": vec![1.0; 8], "long_factor": vec![2.5; 8]});
        let linear = json!({"factor": 8.0});
        let with = |options: &Value, more: Value| {
            let mut options = options.as_object().unwrap().clone();
            options.extend(more.as_object().unwrap().clone());
            Value::Object(options)
        };
        for (model_type, kinds, new, options) in [
            ("llama", &["rope_type", "type"][..], "llama3", &llama3),
            ("qwen2", &["rope_type", "type"], "yarn", &yarn),
            ("mistral", &["type"], "linear", &linear),
            ("phi3", &["rope_type", "type"], "longrope", &long),
        ] {
            let parameters = with(options, json!({"rope_type": new, "rope_theta": 5e5}));
            let model = json!({"model_type": model_type, "original_max_position_embeddings": 64});
            let expected = read(with(&model, json!({"rope_parameters": parameters})));
            let expected = expected.unwrap().ropes;
            assert_eq!(expected[0].theta, 5e5);
            for key in kinds {
                let scaling = with(options, json!({*key: new}));
                let old = json!({"rope_theta": 5e5, "rope_scaling": scaling});
                assert_eq!(
                    read(with(&model, old)).unwrap().ropes,
                    expected,
                    "{model_type} {key}"
                );
            }
        }
        // The names of LongRoPE in the first files of Phi 3.
        let phi3 = |kind: &str| {
            let scaling = with(&long, json!({"type": kind}));
            read(json!({"model_type": "phi3", "rope_scaling": scaling}))
                .unwrap()
                .ropes
        };
        assert_eq!(phi3("su"), phi3("longrope"));
        assert_eq!(phi3("yarn"), phi3("longrope"));
        let old = read(json!({
            "model_type": "gemma3_text", "rope_theta": 3e5, "rope_local_base_freq": 2e3,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}
        }));
        let new = read(json!({"model_type": "gemma3_text", "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 3e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e3}
        }}));
        assert_eq!(old.unwrap().ropes, new.unwrap().ropes);
    }

    #[test]
    fn what_is_not_said_has_transformers_default() {
        let of = |name: &str| read(json!({"model_type": name})).unwrap();
        assert_eq!(of("qwen3").head_dim, 128);
        assert_eq!(of("llama").head_dim, 16);
        assert!(of("qwen2").biases.query_key_value && !of("qwen2").biases.output);
        assert!(of("gemma").tie_word_embeddings && !of("llama").tie_word_embeddings);
        assert_eq!(of("gemma2").score_cap, Some(50.0));
        assert_eq!(of("gemma3_text").score_cap, None);
        assert_eq!(of("gemma2").scale, 1.0 / 16.0);
        assert_eq!(of("smollm3").ropes[0].theta, 2e6);
        let ropes = of("gemma3_text").ropes;
        assert_eq!([ropes[0].theta, ropes[1].theta], [1e6, 1e4]);
        let rope: Vec<_> = of("smollm3")
            .layers
            .iter()
            .map(|layer| layer.rope)
            .collect();
        assert_eq!(rope, [Some(0), Some(0), Some(0), None]);
    }
}
