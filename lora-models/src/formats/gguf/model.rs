//! Models as GGUF files, and back.

use super::PROGRAM;
use super::element::ElementType;
use super::file::{self, Planned, Value};
use super::names::{Base, POSITIONS, as_halves, as_neighbours};
use super::reader::GgufFile;
use super::vocabulary;
use crate::ModelError;
use crate::activation::Activation;
use crate::chat::default_source;
use crate::checkpoint::{ExportDType, ExportReport};
use crate::config::ModelConfig;
use crate::decoder::{DecoderConfig, DecoderFamily, Rope, RopeKind};
use crate::export::{ExportOptions, companions};
use crate::formats::unsupported;
use crate::gpt2::Gpt2Config;
use crate::pretrained::{FamilyConfig, Pretrained, exported, read_object};
use crate::tokenizer::{Tokenizer, TokenizerFiles};
use crate::weights::{ParamSpec, Parameters, Weights};
use burn::tensor::Device;
use lora_core::file::transpose;
use lora_core::files::{Directory, Overwrite, write_dir, write_file};
use serde_json::{Map, Value as Json};
use std::path::Path;

/// Name of a model's file.
pub const MODEL_FILE: &str = "model.gguf";

const F32: ElementType = ElementType::Float(ExportDType::F32);
/// Divisors of the frequencies of rotary embeddings, a tensor that only llama.cpp has.
const FREQUENCIES: &str = "rope_freqs.weight";

/// Writes a model with its tokenizer as a directory, [`MODEL_FILE`] and a `Modelfile` for Ollama. The write is atomic. Returns the
/// object of its `config.json` too, by which [`read_model`] reads it. Of the options, those on the tokenizer count.
///
/// # Errors
/// As [`Pretrained::export`], and [`ModelError::Malformed`] for a model or a tokenizer that llama.cpp lacks, or that has no known form
/// here.
pub fn export_model<M: Pretrained>(
    model: &M,
    dir: &Path,
    dtype: ElementType,
    options: &ExportOptions,
    overwrite: Overwrite,
) -> Result<(ExportReport, Map<String, Json>), ModelError> {
    exported(model, dir, |parameters, object| {
        let report = write_model(dir, parameters, &object, dtype, options, overwrite)?;
        Ok((report, object))
    })
}

/// Checks that a model directory can be exported, before its weights are read.
///
/// # Errors
/// As [`export_model`] for its configuration and its tokenizer.
pub fn check_model(dir: &Path) -> Result<(), ModelError> {
    let (path, object) = read_object(&dir.into())?;
    let config = ModelConfig::from_json(&path, object.clone())?;
    sizes(&config, dir)?;
    let options = ExportOptions {
        base_dir: Some(dir.into()),
        ..ExportOptions::default()
    };
    let rows = config.sizes().vocab_size;
    tokenizer(&companions(&options)?, &object, rows, dir).map(drop)
}

/// Returns the names of a model, and its sizes and options.
fn sizes(config: &ModelConfig, path: &Path) -> Result<(Base, Keys), ModelError> {
    let refuse = |what: String| unsupported(path, what, PROGRAM);
    let sizes = match config {
        ModelConfig::Decoder(config) => decoder(config),
        ModelConfig::Gpt2(config) => gpt2(config),
        ModelConfig::Encoder(config) => Err(format!("a {} with a head", config.family)),
    };
    let names = Base::of(config).ok_or_else(|| refuse(config.model_type().into()))?;
    Ok((names, sizes.map_err(refuse)?))
}

fn write_model(
    dir: &Path,
    parameters: &Parameters<'_>,
    object: &Map<String, Json>,
    dtype: ElementType,
    options: &ExportOptions,
    overwrite: Overwrite,
) -> Result<ExportReport, ModelError> {
    let config = ModelConfig::from_json(dir, object.clone())?;
    let (names, sizes) = sizes(&config, dir)?;
    let mut metadata = vec![
        (
            "general.architecture".to_string(),
            names.architecture.into(),
        ),
        ("general.type".into(), "model".into()),
        ("general.file_type".into(), Value::U32(dtype.file_type())),
        // Of the layout of quantized blocks.
        ("general.quantization_version".into(), Value::U32(2)),
    ];
    let of_model = |(key, value)| (format!("{}.{key}", names.architecture), value);
    metadata.extend(sizes.into_iter().map(of_model));
    let rows = config.sizes().vocab_size;
    metadata.extend(tokenizer(&companions(options)?, object, rows, dir)?);

    let mut planned = Vec::new();
    let mut sources = Vec::new();
    for (parameter, mut shape) in parameters.plan() {
        let name = names.parameter(&parameter);
        let name = name.ok_or_else(|| unsupported(dir, format!("`{parameter}`"), PROGRAM))?;
        if names.is_transposed(&name, &shape) {
            shape.reverse();
        }
        let is_exact = name.starts_with(POSITIONS);
        let dtype = if is_exact {
            F32
        } else {
            dtype.of_shape(&shape)
        };
        planned.push(Planned { name, shape, dtype });
        sources.push(parameter);
    }
    let divisors = match &config {
        ModelConfig::Decoder(config) => divisors(&config.ropes),
        _ => None,
    };
    if let Some(divisors) = &divisors {
        planned.push(Planned {
            name: FREQUENCIES.into(),
            shape: vec![divisors.len()],
            dtype: F32,
        });
    }
    let mut values = |index: usize| {
        let (Some(parameter), planned) = (sources.get(index), &planned[index]) else {
            return Ok(divisors.clone().unwrap_or_default());
        };
        let values = parameters.values(parameter)?;
        Ok(
            match (
                names.permuted_heads(&planned.name),
                planned.shape.as_slice(),
            ) {
                (Some(heads), &[rows, ..]) => {
                    as_neighbours(&values, rows, heads).unwrap_or_default()
                }
                (None, &[rows, columns]) if names.is_transposed(&planned.name, &planned.shape) => {
                    transpose(&values, [columns, rows])
                }
                _ => values,
            },
        )
    };
    let mut file_bytes = 0;
    write_dir(dir, overwrite, |fresh| {
        file_bytes = file::write(&fresh.join(MODEL_FILE), &metadata, &planned, &mut values)?;
        write_file(&fresh.join(super::MODELFILE), Overwrite::Refuse, |out| {
            writeln!(out, "FROM ./{MODEL_FILE}")
        })?;
        Ok::<(), ModelError>(())
    })?;
    let counts = planned
        .iter()
        .map(|tensor| tensor.shape.iter().product::<usize>() as u64);
    Ok(ExportReport {
        files: vec![dir.join(MODEL_FILE)],
        tensors: planned.len(),
        parameters: counts.sum(),
        tensor_bytes: planned.iter().map(|tensor| tensor.size() as u64).sum(),
        file_bytes,
    })
}

/// Reads a file that [`export_model`] has written, as the model of the object of a `config.json`.
///
/// # Errors
/// If the file is malformed, or lacks a tensor of the model.
pub fn read_model<M: Pretrained>(
    path: &Path,
    object: &Map<String, Json>,
    options: &M::Options,
    device: &Device,
) -> Result<M, ModelError> {
    let config = ModelConfig::from_json(path, object.clone())?;
    let names = Base::of(&config);
    let names = names.ok_or_else(|| unsupported(path, config.model_type().into(), PROGRAM))?;
    let mut weights = Reading {
        file: GgufFile::open(path)?,
        names,
    };
    let config = M::Config::from_json(path, object.clone())?;
    M::from_weights(&config, options, device, &mut weights)
}

/// File as a source of parameters.
struct Reading {
    file: GgufFile,
    names: Base,
}

impl Weights for Reading {
    fn values(&mut self, spec: &ParamSpec) -> Result<Option<Vec<f32>>, ModelError> {
        let name = self.names.parameter(&spec.name);
        let name = name.ok_or_else(|| ModelError::missing(&spec.name))?;
        let mut shape = spec.file_shape();
        let is_transposed = self.names.is_transposed(&name, &shape);
        if is_transposed {
            shape.reverse();
        }
        let mut values = self.file.read(&name, &shape)?;
        if let Some(heads) = self.names.permuted_heads(&name) {
            values = as_halves(&values, shape[0], heads).unwrap_or_default();
        }
        Ok(Some(match shape.as_slice() {
            // As in a file of transformers, and from there as in the module.
            &[rows, columns] if is_transposed != spec.transposed => {
                transpose(&values, [rows, columns])
            }
            _ => values,
        }))
    }
}

/// Returns the metadata of the tokenizer in the files of a model.
fn tokenizer(
    files: &TokenizerFiles,
    object: &Map<String, Json>,
    rows: usize,
    path: &Path,
) -> Result<Vec<(String, Value)>, ModelError> {
    let dir = files
        .iter()
        .fold(Directory::in_memory(path), |dir, (name, bytes)| {
            dir.with_file(name, bytes.clone())
        });
    let template = default_source(&dir)?;
    let tokenizer = Tokenizer::with_config(dir, object)?;
    vocabulary::metadata(&tokenizer, template.as_deref(), rows, path)
}

/// Sizes and options by the ends of their keys.
type Keys = Vec<(&'static str, Value)>;

type Sizes = Result<Keys, String>;

fn number(value: usize) -> Value {
    Value::U32(value as u32)
}

/// Returns sizes and options of a decoder; what is not known here as an error.
fn decoder(config: &DecoderConfig) -> Sizes {
    use DecoderFamily::{Llama, Mistral, Qwen2, Qwen3};
    let family = config.family;
    if !matches!(family, Llama | Mistral | Qwen2 | Qwen3) {
        return Err(format!("a model of the family `{}`", family.model_type()));
    }
    if config.layers.iter().any(|layer| layer.window.is_some()) {
        return Err("a sliding window".into());
    }
    let [rope] = config.ropes.as_slice() else {
        return Err("several rotary embeddings".into());
    };
    if config.activation != Activation::Silu
        || config.layers.iter().any(|layer| layer.rope.is_none())
    {
        return Err("the activation, or a layer without positions".into());
    }
    let mut sizes = vec![
        ("block_count", number(config.layers.len())),
        ("context_length", number(config.max_position_embeddings)),
        ("embedding_length", number(config.hidden_size)),
        ("feed_forward_length", number(config.intermediate_size)),
        ("attention.head_count", number(config.num_attention_heads)),
        (
            "attention.head_count_kv",
            number(config.num_key_value_heads),
        ),
        ("attention.key_length", number(config.head_dim)),
        ("attention.value_length", number(config.head_dim)),
        (
            "attention.layer_norm_rms_epsilon",
            Value::F32(config.norm_epsilon as f32),
        ),
        ("vocab_size", number(config.vocab_size)),
        ("rope.dimension_count", number(rope.features)),
        ("rope.freq_base", Value::F32(rope.theta as f32)),
    ];
    match &rope.kind {
        // The divisors of the latter are a tensor.
        RopeKind::Default | RopeKind::Llama3 { .. } => {}
        RopeKind::Linear { factor } => sizes.extend([
            ("rope.scaling.type", "linear".into()),
            ("rope.scaling.factor", Value::F32(*factor as f32)),
        ]),
        other => return Err(format!("a rotary embedding of the kind {other:?}")),
    }
    Ok(sizes)
}

/// Returns the divisors of the frequencies of Llama 3's rotary embeddings.
fn divisors(ropes: &[Rope]) -> Option<Vec<f32>> {
    let rope = ropes.first()?;
    let RopeKind::Llama3 { .. } = rope.kind else {
        return None;
    };
    let plain = Rope {
        kind: RopeKind::Default,
        ..rope.clone()
    };
    let pairs = plain.frequencies(0).into_iter().zip(rope.frequencies(0));
    Some(pairs.map(|(plain, changed)| plain / changed).collect())
}

fn gpt2(config: &Gpt2Config) -> Sizes {
    if config.activation_function != Activation::GeluTanh
        || config.scale_attn_by_inverse_layer_idx
        || !config.scale_attn_weights
    {
        return Err("the activation or the scale of the scores".into());
    }
    Ok(vec![
        ("block_count", number(config.n_layer)),
        ("context_length", number(config.n_positions)),
        ("embedding_length", number(config.n_embd)),
        ("feed_forward_length", number(config.inner())),
        ("attention.head_count", number(config.n_head)),
        (
            "attention.layer_norm_epsilon",
            Value::F32(config.layer_norm_epsilon as f32),
        ),
    ])
}
