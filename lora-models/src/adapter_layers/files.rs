//! Adapter layers in the files of the library `adapters` (<https://github.com/adapter-hub/adapters>), read strictly.

use super::build::Tensors;
use super::config::{AdapterLayersConfig, Residual};
use super::module::AdapterLayers;
use crate::ModelError;
use crate::activation::Activation;
use crate::checkpoint::{TensorRef, write_pickle};
use crate::config_keys::ConfigKeys;
use crate::prefix::PrefixShape;
use crate::weights::on_host;
use burn::module::Param;
use burn::tensor::{Device, Tensor};
use lora_core::file::{AdapterDir, AdapterTensors, CONFIG_FILE, StoredTensor, transpose};
use lora_core::files::{Directory, DirectoryFile, Overwrite, write_dir, write_file};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Name of the subdirectory with the adapter layers that go with another adapter.
pub const ADAPTER_LAYERS_DIR: &str = "adapter-layers";
/// File with the tensors, which the library reads by default.
const WEIGHTS: &str = "pytorch_adapter.bin";
const SAFE_WEIGHTS: &str = "adapter.safetensors";
/// Files with the head.
const HEAD_CONFIG: &str = "head_config.json";
const HEAD: &str = "pytorch_model_head.bin";
const SAFE_HEAD: &str = "model_head.safetensors";
/// Version of the library whose files these are.
const VERSION: &str = "adapters.1.3.0";
/// Maximum size of a configuration in bytes.
const CONFIG_LIMIT: u64 = 1 << 20;
/// Keys without effect on loaded weights, or on the layers that are supported.
const WITHOUT_EFFECT: &[&str] = &[
    "adapter_residual_before_ln",
    "cross_adapter",
    "factorized_phm_W",
    "factorized_phm_rule",
    "hypercomplex_nonlinearity",
    "init_weights",
    "init_weights_seed",
    "inv_adapter_reduction_factor",
    "learn_phm",
    "phm_bias",
    "phm_c_init",
    "phm_dim",
    "phm_init_range",
    "phm_rank",
    "shared_W_phm",
    "shared_phm_rule",
];
/// Keys of the options that are read.
const READ: &[&str] = &[
    "dropout",
    "leave_out",
    "ln_before",
    "mh_adapter",
    "non_linearity",
    "original_ln_after",
    "original_ln_before",
    "output_adapter",
    "reduction_factor",
    "residual_before_ln",
    "scaling",
];

/// Names that the library has for parts of a model.
#[derive(Clone, Debug)]
pub struct LayerNames {
    /// `model_type` of the model.
    pub model_type: &'static str,
    /// Name of the base model in a model with a head, such as `bert`.
    pub trunk: &'static str,
    /// Names of all layers, such as `bert.encoder.layer.0`.
    pub layers: Vec<String>,
    /// Names within a layer of the adapter layers after the attention, and after the MLP.
    pub places: [&'static str; 2],
}

impl LayerNames {
    /// Returns the name of the modules of an adapter layer, from the path of a parameter: `adapters.{layer}.{place}.…`.
    fn module(&self, index: usize, place: &str, adapter: &str) -> String {
        let place = self.places[usize::from(place == "output")];
        format!("{}.{place}.adapters.{adapter}", self.layers[index])
    }

    /// Returns the name in a file of the parameter at a path.
    fn tensor(&self, path: &str, config: &AdapterLayersConfig) -> String {
        let mut parts = path.splitn(4, '.').skip(1);
        let index = parts.next().and_then(|index| index.parse().ok());
        let place = parts.next().unwrap_or_default();
        let down = format!("adapter_down.{}", usize::from(config.own_norm));
        let name = match parts.next().unwrap_or_default() {
            "norm.gamma" => "adapter_norm_before.weight".into(),
            "norm.beta" => "adapter_norm_before.bias".into(),
            "down.weight" => format!("{down}.weight"),
            "down.bias" => format!("{down}.bias"),
            up => format!("adapter_{up}"),
        };
        let module = self.module(index.unwrap_or_default(), place, &config.name);
        format!("{module}.{name}")
    }
}

/// Returns the file with the tensors, or that of another name if the first is missing.
fn either(dir: &Directory, [first, other]: [&str; 2]) -> DirectoryFile {
    let file = dir.file(first);
    if file.exists() { file } else { dir.file(other) }
}

/// Reads the options in `adapter_config.json`.
fn read_config(
    path: &Path,
    object: &Map<String, Value>,
    shape: &PrefixShape,
    names: &LayerNames,
) -> Result<AdapterLayersConfig, ModelError> {
    let outer = ConfigKeys::new(path, object.clone());
    let name: Option<String> = outer.get("name")?;
    let name =
        name.ok_or_else(|| ModelError::json(path, "has no `name`, which its tensors have"))?;
    let model_type: Option<String> = outer.get("model_type")?;
    if let Some(other) = model_type.filter(|other| other != names.model_type) {
        let message = format!(
            "the adapter layers are for a model of type `{other}`, and the model is of type `{}`",
            names.model_type
        );
        return Err(ModelError::malformed(path, message));
    }
    let d = shape.d_model;
    if let Some(other) = outer
        .get::<usize>("hidden_size")?
        .filter(|&other| other != d)
    {
        let message = format!("`hidden_size` is {other}, and the model has {d}");
        return Err(ModelError::malformed(path, message));
    }
    let options: Map<String, Value> = outer.or("config", Map::new())?;
    let keys = ConfigKeys::new(path, options);
    let is_off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    };
    let mut others = keys.object().iter();
    if let Some((key, value)) = others.find(|(key, value)| {
        let known = READ.contains(&key.as_str()) || WITHOUT_EFFECT.contains(&key.as_str());
        !known && !is_off(value)
    }) {
        let expected = "null, false or 0: it changes what the layers compute";
        return Err(keys.refuse(key, value, expected));
    }
    let require = |key: &str| -> Result<bool, ModelError> {
        let value = keys.get(key)?;
        value.ok_or_else(|| ModelError::json(path, format!("has no `config.{key}`")))
    };
    let factor: Option<f64> = match keys.object().get("reduction_factor") {
        Some(Value::Object(map)) => {
            let expected = "one number for all layers";
            return Err(keys.refuse("reduction_factor", Value::from(map.clone()), expected));
        }
        _ => keys.get("reduction_factor")?,
    };
    let factor = factor.filter(|factor| factor.is_finite() && *factor > 0.0);
    let factor = factor.ok_or_else(|| {
        let value = keys.object().get("reduction_factor").cloned();
        keys.refuse(
            "reduction_factor",
            value.unwrap_or_default(),
            "a number above 0",
        )
    })?;
    // Python's `//` on floats.
    let size = ((d as f64 - d as f64 % factor) / factor).round();
    if size > (1 << 20) as f64 {
        return Err(keys.refuse(
            "reduction_factor",
            factor,
            "a bottleneck of at most 2^20 values",
        ));
    }
    let residual = match keys.object().get("residual_before_ln") {
        None | Some(Value::Bool(true)) => Residual::Sublayer,
        Some(Value::Bool(false)) => Residual::Input,
        Some(Value::String(text)) if text == "post_add" => Residual::Sum,
        Some(other) => {
            return Err(keys.refuse("residual_before_ln", other, "true, false or post_add"));
        }
    };
    let norm_before = keys.or("original_ln_before", false)?;
    if residual == Residual::Sum && !norm_before {
        let expected = "true or false without `original_ln_before`";
        return Err(keys.refuse("residual_before_ln", "post_add", expected));
    }
    let scaling = match keys.object().get("scaling") {
        Some(Value::String(text)) => return Err(keys.refuse("scaling", text, "a number")),
        _ => keys.or("scaling", 1.0)?,
    };
    let leave_out: Vec<usize> = keys.or("leave_out", Vec::new())?;
    Ok(AdapterLayersConfig {
        name,
        after_attention: require("mh_adapter")?,
        after_mlp: require("output_adapter")?,
        size: Some((size as usize).max(1)),
        activation: keys.activation("non_linearity", "relu")?,
        norm_before,
        norm_after: keys.or("original_ln_after", true)?,
        residual,
        own_norm: keys.or("ln_before", false)?,
        scaling,
        dropout: keys.or("dropout", 0.0)?,
        // A layer that the model lacks is left out anyway, as in the library.
        leave_out: leave_out
            .into_iter()
            .filter(|&layer| layer < shape.layers)
            .collect(),
        seed: 42,
    })
}

/// Reads the adapter layers of an opened directory.
///
/// # Errors
/// If a file cannot be read or is malformed, a key is not supported, the layers belong to another model, or a tensor is missing,
/// left over, misshapen or not finite.
pub(crate) fn read(
    adapter: &AdapterDir,
    shape: &PrefixShape,
    names: &LayerNames,
    device: &Device,
) -> Result<AdapterLayers, ModelError> {
    let config = read_config(
        &adapter.path().join(CONFIG_FILE),
        adapter.keys(),
        shape,
        names,
    )?;
    let tensors = AdapterTensors::open(either(adapter.directory(), [SAFE_WEIGHTS, WEIGHTS]))?;
    // A bare base model has no name of its own before its layers.
    let trunk = format!("{}.", names.trunk);
    let all = tensors.names();
    let is_bare = !all.iter().any(|name| name.starts_with(&trunk));
    let mut left: BTreeSet<String> = all.into_iter().collect();
    let layers = config.build(shape, device, |path, shape, kind| {
        let full = names.tensor(path, &config);
        let name = match full.strip_prefix(&trunk) {
            Some(bare) if is_bare => bare.to_string(),
            _ => full,
        };
        left.remove(&name);
        if let (Some(module), Tensors::Scale | Tensors::Zeros) =
            (name.strip_suffix(".adapter_norm_before.weight"), kind)
        {
            // The norm is the first module of the down projection too.
            for end in ["weight", "bias"] {
                left.remove(&format!("{module}.adapter_down.0.{end}"));
            }
        }
        match (kind, shape) {
            (Tensors::Weight, &[d_in, d_out]) => {
                let rows = tensors.values(&name, &[d_out, d_in])?;
                Ok(transpose(&rows, [d_out, d_in]))
            }
            _ => Ok(tensors.values(&name, shape)?),
        }
    })?;
    if left.is_empty() {
        return Ok(layers);
    }
    Err(ModelError::TensorUnexpected {
        path: tensors.path().into(),
        names: left.into_iter().collect(),
    })
}

/// Opens the tensors of the head beside adapter layers; `None` without a head.
///
/// # Errors
/// If a file cannot be read or is malformed, or the head is a flexible one.
pub(crate) fn head(dir: &Directory) -> Result<Option<AdapterTensors>, ModelError> {
    let file = either(dir, [SAFE_HEAD, HEAD]);
    if !file.exists() {
        return Ok(None);
    }
    let (config_path, keys) = head_config(dir)?;
    if let Some(config) = keys.get("config").filter(|config| !config.is_null()) {
        let shown = config.get("head_type").unwrap_or(config);
        let message = format!(
            "`config` is {shown}: a flexible head of an `AdapterModel`; load it on a model class such as \
             `BertForSequenceClassification` with `adapters.init` and save it from there, or remove the files of the head and \
             train a new one"
        );
        return Err(ModelError::malformed(&config_path, message));
    }
    Ok(Some(AdapterTensors::open(file)?))
}

/// Reads `head_config.json`; empty without the file.
///
/// # Errors
/// If the file cannot be read or is malformed.
pub(crate) fn head_config(dir: &Directory) -> Result<(PathBuf, Map<String, Value>), ModelError> {
    let file = dir.file(HEAD_CONFIG);
    let path = file.path().to_path_buf();
    if !file.exists() {
        return Ok((path, Map::new()));
    }
    let bytes = file.read(CONFIG_LIMIT)?;
    let object = serde_json::from_slice(&bytes);
    let object = object.map_err(|error| ModelError::json(&path, error))?;
    Ok((path, object))
}

/// Head that is written beside adapter layers.
pub(crate) struct SavedHead<'a> {
    /// Tensors by their names in transformers.
    pub tensors: &'a BTreeMap<String, StoredTensor>,
    /// Class of the model in transformers.
    pub model_class: String,
    /// Names of the outputs.
    pub labels: Vec<String>,
}

/// Writes adapter layers as a directory of the library `adapters`, atomically.
///
/// # Errors
/// [`LoraError::AlreadyExists`](lora_core::LoraError::AlreadyExists) if the directory is there and may not be replaced, or an
/// error of the file system.
pub(crate) fn save(
    layers: &AdapterLayers,
    head: Option<&SavedHead<'_>>,
    names: &LayerNames,
    model_class: &str,
    dir: &Path,
    overwrite: Overwrite,
) -> Result<(), ModelError> {
    let tensors = tensors(layers, names)?;
    let (config, d) = (&layers.config, layers.d_model);
    let size = config.size_in(d);
    // Python divides with `//`, for which d / size may be a little too large.
    let factor = if d.is_multiple_of(size) {
        json!(d / size)
    } else {
        json!(d as f64 / (size as f64 + 0.5))
    };
    let activation = match config.activation {
        Activation::Silu => "swish",
        other => other.name(),
    };
    let object = json!({
        "config": {
            "adapter_residual_before_ln": false,
            "cross_adapter": false,
            "dropout": config.dropout,
            "factorized_phm_W": true,
            "factorized_phm_rule": false,
            "hypercomplex_nonlinearity": "glorot-uniform",
            "init_weights": "bert",
            "init_weights_seed": null,
            "inv_adapter": null,
            "inv_adapter_reduction_factor": null,
            "is_parallel": false,
            "learn_phm": true,
            "leave_out": config.leave_out,
            "ln_after": false,
            "ln_before": config.own_norm,
            "mh_adapter": config.after_attention,
            "non_linearity": activation,
            "original_ln_after": config.norm_after,
            "original_ln_before": config.norm_before,
            "output_adapter": config.after_mlp,
            "phm_bias": true,
            "phm_c_init": "normal",
            "phm_dim": 4,
            "phm_init_range": 0.0001,
            "phm_layer": false,
            "phm_rank": 1,
            "reduction_factor": factor,
            "residual_before_ln": match config.residual {
                Residual::Sublayer => json!(true),
                Residual::Input => json!(false),
                Residual::Sum => json!("post_add"),
            },
            "scaling": config.scaling,
            "shared_W_phm": false,
            "shared_phm_rule": true,
            "stochastic_depth": 0.0,
            "use_gating": false,
        },
        "hidden_size": d,
        "model_class": model_class,
        "model_name": "",
        "model_type": names.model_type,
        "name": config.name,
        "version": VERSION,
    });
    write_dir(dir, overwrite, |dir| {
        let text = |name: &str, object: &Value| {
            write_file(&dir.join(name), Overwrite::Refuse, |file| {
                file.write_all(format!("{object:#}\n").as_bytes())
            })
        };
        text(CONFIG_FILE, &object)?;
        write_pickle(dir.join(WEIGHTS), &references(&tensors), Overwrite::Refuse)?;
        if let Some(head) = head {
            let labels = head.labels.iter().enumerate();
            let labels: Map<String, Value> = labels
                .map(|(index, label)| (label.clone(), index.into()))
                .collect();
            let object = json!({
                "config": null,
                "hidden_size": d,
                "label2id": labels,
                "model_class": head.model_class,
                "model_name": "",
                "model_type": names.model_type,
                "name": null,
                "num_labels": head.labels.len(),
                "version": VERSION,
            });
            text(HEAD_CONFIG, &object)?;
            write_pickle(dir.join(HEAD), &references(head.tensors), Overwrite::Refuse)?;
        }
        Ok::<(), ModelError>(())
    })
}

/// Returns the tensors of adapter layers by their names in files.
fn tensors(
    layers: &AdapterLayers,
    names: &LayerNames,
) -> Result<BTreeMap<String, StoredTensor>, ModelError> {
    let mut tensors = BTreeMap::new();
    for (index, layer) in layers.layers.iter().enumerate() {
        for (place, bottleneck) in [("attention", &layer.attention), ("output", &layer.output)] {
            let Some(bottleneck) = bottleneck else {
                continue;
            };
            let name = |name: &str| {
                names.tensor(&format!("adapters.{index}.{place}.{name}"), &layers.config)
            };
            let vector = |param: &Param<Tensor<1>>| {
                let value = param.val();
                let shape = value.dims();
                Ok::<_, ModelError>(StoredTensor::new(shape, on_host("adapter layer", value)?))
            };
            for (part, linear) in [("down", &bottleneck.down), ("up", &bottleneck.up)] {
                let weight = linear.weight.val();
                let [d_in, d_out] = weight.dims();
                let values = transpose(&on_host("adapter layer", weight)?, [d_in, d_out]);
                let weight = StoredTensor::new([d_out, d_in], values);
                tensors.insert(name(&format!("{part}.weight")), weight);
                if let Some(bias) = &linear.bias {
                    tensors.insert(name(&format!("{part}.bias")), vector(bias)?);
                }
            }
            if let Some(norm) = &bottleneck.norm {
                let module = names.module(index, place, &layers.config.name);
                for (end, param) in [("weight", &norm.gamma), ("bias", &norm.beta)] {
                    let value = vector(param)?;
                    // PyTorch lists the norm twice, by itself and as the first module of the down projection.
                    tensors.insert(format!("{module}.adapter_down.0.{end}"), value.clone());
                    tensors.insert(format!("{module}.adapter_norm_before.{end}"), value);
                }
            }
        }
    }
    Ok(tensors)
}

fn references(tensors: &BTreeMap<String, StoredTensor>) -> Vec<TensorRef<'_>> {
    let tensors = tensors.iter().map(|(name, tensor)| TensorRef {
        name,
        shape: &tensor.shape,
        values: &tensor.values,
    });
    tensors.collect()
}
