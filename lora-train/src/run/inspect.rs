//! What an adapter or a model is, without loading it onto anything.

use super::open::model_directory;
use crate::TrainError;
use lora_core::BiasTraining;
use lora_core::peft::{CONFIG_FILE, PREFIX, WEIGHTS_FILE, read_config};
use lora_models::checkpoint::Checkpoint;
use lora_models::classifier::adapter_labels;
use lora_models::encoder::{EncoderConfig, EncoderFamily, Labels};
use lora_models::gpt2::Gpt2Config;
use lora_models::model_type;
use lora_models::prefix::{PrefixSummary, beside, is_prefix};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Describes a PEFT adapter or a model directory.
///
/// # Errors
/// If it is neither, or a file of it is malformed.
pub fn inspect(path: &Path) -> Result<String, TrainError> {
    if path.join(CONFIG_FILE).exists() {
        if is_prefix(path)? {
            return prefix(path);
        }
        let text = adapter(path)?;
        match beside(path)? {
            None => Ok(text),
            Some(dir) => Ok(text + &prefix(&dir)?),
        }
    } else {
        model(path)
    }
}

fn prefix(path: &Path) -> Result<String, TrainError> {
    let summary = PrefixSummary::read(path)?;
    Ok(format!("PEFT prefix {}\n{summary}", path.display()))
}

fn adapter(path: &Path) -> Result<String, TrainError> {
    let config = read_config(path)?;
    let checkpoint = Checkpoint::open(path.join(WEIGHTS_FILE))?;
    let mut text = format!("PEFT LoRA adapter {}\n", path.display());
    line(
        &mut text,
        format!(
            "  rank {}, alpha {}, dropout {}, {:?} scaling: scale {}",
            config.rank,
            config.alpha,
            config.dropout,
            config.scaling,
            config.scaling.factor(config.alpha, config.rank)
        ),
    );
    line(&mut text, format!("  targets {:?}", config.targets));
    if config.dora {
        line(&mut text, "  DoRA: magnitudes train apart".into());
    }
    if config.bias != BiasTraining::None {
        line(
            &mut text,
            format!("  biases of the base train: {:?}", config.bias),
        );
    }
    for (name, rank) in &config.rank_pattern {
        line(&mut text, format!("  rank {rank} for {name}"));
    }
    for (name, alpha) in &config.alpha_pattern {
        line(&mut text, format!("  alpha {alpha} for {name}"));
    }
    let mut modules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut parameters = 0;
    let mut notes = Vec::new();
    let mut whole = Vec::new();
    for name in checkpoint.names() {
        let shape = checkpoint.shape(name).unwrap_or_default();
        parameters += shape.iter().product::<usize>();
        let plain = name.strip_prefix(PREFIX);
        let Some((module, factor)) = plain.and_then(|n| n.split_once(".lora_")) else {
            let is_saved = |part: &str| config.modules_to_save.iter().any(|saved| saved == part);
            let is_bias = |n: &str| config.bias != BiasTraining::None && n.ends_with(".bias");
            match plain.filter(|n| is_bias(n) || n.split('.').any(is_saved)) {
                Some(parameter) => whole.push(format!("{parameter} {shape:?}")),
                None => notes.push(format!("`{name}` is no LoRA factor")),
            }
            continue;
        };
        let values = checkpoint.read_f32(name)?.values;
        let norm = values
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt();
        let factor = factor.trim_end_matches(".weight");
        modules
            .entry(module.to_string())
            .or_default()
            .push(format!("{factor} {shape:?} norm {norm:.4}"));
        if !norm.is_finite() {
            notes.push(format!("`{name}` has values that are not finite"));
        } else if norm == 0.0 && !name.ends_with(".lora_B.bias") {
            notes.push(format!(
                "`{name}` is all zero: the adapter does nothing there"
            ));
        }
    }
    line(
        &mut text,
        format!(
            "  {} modules, {parameters} parameters, {} bytes",
            modules.len(),
            checkpoint.file_bytes()
        ),
    );
    for (module, factors) in modules {
        line(&mut text, format!("  {module}: {}", factors.join(", ")));
    }
    for parameter in whole {
        line(&mut text, format!("  {parameter}, trained whole"));
    }
    if path.join("config.json").exists()
        && let Some(labels) = adapter_labels(path)?.labels
    {
        line(&mut text, outputs(&labels));
    }
    for note in notes {
        line(&mut text, format!("  unusual: {note}"));
    }
    Ok(text)
}

fn model(path: &Path) -> Result<String, TrainError> {
    let path = &model_directory(path)?;
    let kind = model_type(path)?;
    let mut text = format!("{kind} model {}\n", path.display());
    let targets = match kind.as_str() {
        "gpt2" => gpt2(&mut text, &Gpt2Config::from_dir(path)?),
        _ => encoder(&mut text, &EncoderConfig::from_dir(path)?),
    };
    let checkpoint = Checkpoint::open(path)?;
    let mut dtypes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut parameters = 0;
    for name in checkpoint.names() {
        parameters += checkpoint
            .shape(name)
            .unwrap_or_default()
            .iter()
            .product::<usize>();
        if let Some(dtype) = checkpoint.dtype(name) {
            *dtypes.entry(dtype.name()).or_default() += 1;
        }
    }
    let dtypes: Vec<String> = dtypes
        .iter()
        .map(|(dtype, count)| format!("{count} {dtype}"))
        .collect();
    line(
        &mut text,
        format!(
            "  {}: {} tensors ({}), {parameters} parameters, {} bytes",
            checkpoint.source(),
            checkpoint.len(),
            dtypes.join(", "),
            checkpoint.file_bytes()
        ),
    );
    line(&mut text, format!("  targets: {targets}"));
    Ok(text)
}

fn gpt2(text: &mut String, config: &Gpt2Config) -> &'static str {
    line(
        text,
        format!(
            "  {} layers, {} wide, {} heads, {} tokens, {} positions, head {}",
            config.n_layer,
            config.n_embd,
            config.n_head,
            config.vocab_size,
            config.n_positions,
            if config.tie_word_embeddings {
                "tied"
            } else {
                "of its own"
            }
        ),
    );
    "c_attn (or slices c_attn[q,k,v]), c_proj, c_fc, lm_head, wte"
}

fn encoder(text: &mut String, config: &EncoderConfig) -> &'static str {
    line(
        text,
        format!(
            "  {} layers, {} wide, {} heads, {} tokens, inputs of {} tokens at most",
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.vocab_size,
            config.max_length(),
        ),
    );
    line(text, outputs(&config.labels));
    match config.family {
        EncoderFamily::Deberta => {
            "in_proj (or slices in_proj[q,k,v]), pos_proj, pos_q_proj, dense, word_embeddings"
        }
        EncoderFamily::DebertaV2 => "query_proj, key_proj, value_proj, dense, word_embeddings",
        _ => "query, key, value, dense, word_embeddings",
    }
}

fn outputs(labels: &Labels) -> String {
    match labels {
        Labels::Score => "  a head gives a score".into(),
        Labels::Classes(names) => format!("  a head gives {}", names.join(", ")),
    }
}

fn line(text: &mut String, line: String) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}
