//! Rotary position embeddings in a `config.json`: `rope_parameters`, or `rope_theta` and `rope_scaling` in older files.

use super::family::DecoderFamily;
use super::rope::{Rope, RopeKind};
use crate::ModelError;
use crate::config_keys::{ConfigKeys, unsupported};
use serde_json::{Map, Value};
use std::path::Path;

/// Kinds that are supported.
const KINDS: &str = "default, linear, llama3, yarn or longrope";

/// Sizes that rotary embeddings depend on.
pub(super) struct RopeSizes {
    pub head_dim: usize,
    pub max_position_embeddings: usize,
}

/// Rotary embeddings of a model.
pub(super) struct Ropes {
    /// Embedding of layers without a window, or of all.
    pub full: Rope,
    /// Embedding of layers with a window, if it differs.
    pub sliding: Option<Rope>,
}

/// Reads the rotary embeddings of all layers.
///
/// # Errors
/// [`ModelError::UnsupportedConfig`] for a kind or a value without support, with its key; [`ModelError::Json`] for a value of
/// another type.
pub(super) fn read(
    path: &Path,
    keys: &ConfigKeys<'_>,
    family: DecoderFamily,
    sizes: &RopeSizes,
) -> Result<Ropes, ModelError> {
    let object = |key: &str| -> Result<Option<Map<String, Value>>, ModelError> {
        match keys.object().get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object.clone()).filter(|all| !all.is_empty())),
            Some(other) => Err(keys.refuse(key, other, "an object")),
        }
    };
    let scaling = object("rope_scaling")?;
    let parameters = object("rope_parameters")?;
    let theta: f64 = keys.or("rope_theta", 1e4)?;
    let reader = Reader {
        path,
        keys,
        family,
        sizes,
    };
    if !family.traits().ropes_by_layer {
        let (name, parameters) = match (scaling, parameters) {
            (Some(scaling), _) => ("rope_scaling", scaling),
            (None, parameters) => ("rope_parameters", parameters.unwrap_or_default()),
        };
        return Ok(Ropes {
            full: reader.rope(name, parameters, theta)?,
            sliding: None,
        });
    }
    // By kind of layer; in older files, the scaling is that of layers without a window.
    let mut parameters = parameters.unwrap_or_default();
    let by_layer = ["full_attention", "sliding_attention"];
    let mut names = parameters.keys();
    if let Some(name) = names.find(|name| !by_layer.contains(&name.as_str())) {
        let expected = format!("`{}` and `{}`", by_layer[0], by_layer[1]);
        return Err(keys.refuse("rope_parameters", name, expected));
    }
    let [full, sliding] = by_layer.map(|name| match parameters.remove(name) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    });
    let mut full = full;
    full.extend(scaling.unwrap_or_default());
    let [theta, local] = match family {
        DecoderFamily::Gemma3Text => [
            keys.or("rope_theta", 1e6)?,
            keys.or("rope_local_base_freq", 1e4)?,
        ],
        // As in transformers, which gives an older key to the layers without a window.
        _ => [theta, 5e5],
    };
    Ok(Ropes {
        full: reader.rope("rope_parameters", full, theta)?,
        sliding: Some(reader.rope("rope_parameters", sliding, local)?),
    })
}

struct Reader<'a> {
    path: &'a Path,
    keys: &'a ConfigKeys<'a>,
    family: DecoderFamily,
    sizes: &'a RopeSizes,
}

impl Reader<'_> {
    /// Reads one rotary embedding from its object.
    fn rope(&self, name: &str, object: Map<String, Value>, theta: f64) -> Result<Rope, ModelError> {
        let refuse = |key: &str, value: &dyn ToString, expected: &str| {
            unsupported(
                self.path,
                &format!("{name}.{key}"),
                value.to_string(),
                expected,
            )
        };
        let own = ConfigKeys::new(self.path, object);
        let kind: Option<String> = own.get("rope_type")?;
        let kind = match kind {
            Some(kind) => kind,
            None => own.or("type", "default".to_string())?,
        };
        let theta: f64 = own.or("rope_theta", theta)?;
        if !(theta.is_finite() && theta > 1.0) {
            return Err(refuse("rope_theta", &theta, "a number above 1"));
        }
        let partial: f64 = match own.get("partial_rotary_factor")? {
            Some(partial) => partial,
            None => self.keys.or("partial_rotary_factor", 1.0)?,
        };
        if partial != 1.0 && !self.family.traits().partial {
            return Err(refuse(
                "partial_rotary_factor",
                &partial,
                "1 in this family",
            ));
        }
        let features = (self.sizes.head_dim as f64 * partial) as usize;
        if !(features >= 2 && features.is_multiple_of(2) && features <= self.sizes.head_dim) {
            let expected = format!(
                "an even number of features of a head of {}, not {features}",
                self.sizes.head_dim
            );
            return Err(refuse("partial_rotary_factor", &partial, &expected));
        }
        let positive = |key: &str, default: Option<f64>| -> Result<f64, ModelError> {
            let found: Option<f64> = own.get(key)?;
            match found.or(default) {
                Some(value) if value.is_finite() && value > 0.0 => Ok(value),
                Some(value) => Err(refuse(key, &value, "a positive number")),
                None => Err(refuse(key, &"not there", "a positive number")),
            }
        };
        let max = self.sizes.max_position_embeddings as f64;
        // A key at the top level has priority, as in transformers: Phi 3 has it there.
        let original = match self.keys.get("original_max_position_embeddings")? {
            Some(original) if !self.family.traits().ropes_by_layer => {
                let key = "original_max_position_embeddings";
                let is_length = |value: &f64| value.is_finite() && *value > 0.0;
                Some(original).filter(is_length).ok_or_else(|| {
                    unsupported(self.path, key, original.to_string(), "a positive number")
                })?
            }
            _ => positive("original_max_position_embeddings", Some(max))?,
        };
        let kind = match (kind.as_str(), self.family) {
            ("default", _) => RopeKind::Default,
            ("su" | "yarn" | "longrope", DecoderFamily::Phi3) | ("longrope", _) => {
                let divisors = |key: &str| -> Result<Vec<f64>, ModelError> {
                    let all: Vec<f64> = own.or(key, Vec::new())?;
                    let count = features / 2;
                    let fits = |divisor: &f64| divisor.is_finite() && *divisor > 0.0;
                    if all.len() != count || !all.iter().all(fits) {
                        let expected = format!("{count} positive numbers");
                        return Err(refuse(key, &all.len(), &expected));
                    }
                    Ok(all)
                };
                let factor = positive("factor", Some(max / original))?;
                let default = match factor {
                    factor if factor <= 1.0 => 1.0,
                    factor => (1.0 + factor.ln() / original.ln()).sqrt(),
                };
                RopeKind::LongRope {
                    short: divisors("short_factor")?,
                    long: divisors("long_factor")?,
                    original: original as usize,
                    attention_factor: positive("attention_factor", Some(default))?,
                }
            }
            ("linear", _) => RopeKind::Linear {
                factor: positive("factor", None)?,
            },
            ("llama3", _) => {
                let low = positive("low_freq_factor", None)?;
                let high = positive("high_freq_factor", None)?;
                if high <= low {
                    return Err(refuse(
                        "high_freq_factor",
                        &high,
                        "more than `low_freq_factor`",
                    ));
                }
                RopeKind::Llama3 {
                    factor: positive("factor", None)?,
                    low,
                    high,
                    original,
                }
            }
            ("yarn", _) => {
                let factor = positive("factor", Some(max / original))?;
                let m = |scale: f64| match factor {
                    factor if factor <= 1.0 => 1.0,
                    factor => 0.1 * scale * factor.ln() + 1.0,
                };
                let scales: [Option<f64>; 2] = [own.get("mscale")?, own.get("mscale_all_dim")?];
                let default = match scales.map(|scale| scale.filter(|&scale| scale != 0.0)) {
                    [Some(scale), Some(all)] => m(scale) / m(all),
                    _ => m(1.0),
                };
                RopeKind::Yarn {
                    factor,
                    beta_fast: positive("beta_fast", Some(32.0))?,
                    beta_slow: positive("beta_slow", Some(1.0))?,
                    original,
                    truncate: own.or("truncate", true)?,
                    attention_factor: positive("attention_factor", Some(default))?,
                }
            }
            (other, _) => return Err(refuse("rope_type", &other, KINDS)),
        };
        Ok(Rope {
            theta,
            features,
            kind,
        })
    }
}
