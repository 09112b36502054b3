//! `adapter_config.json`, written as PEFT reads it without a warning.

use crate::config::{LoraInit, LoraScaling, TargetModules};
use crate::stored::{StoredAdapter, StoredFactors};
use serde_json::{Map, Value, json};

/// What PEFT wants to know beside the adapter.
#[derive(Clone, Debug, Default)]
pub struct PeftOptions {
    /// PEFT's task, such as `CAUSAL_LM`; it decides which model class wraps the adapter.
    pub task_type: Option<String>,
    /// Name or path of the base model.
    pub base_model: Option<String>,
    /// Whether the adapted layers are `Conv1D` in Python, as GPT-2's are.
    pub fan_in_fan_out: bool,
    /// Other files to write into the directory, by name: what PEFT has no place for.
    pub companions: Vec<(String, Vec<u8>)>,
}

/// The configuration of an adapter as PEFT writes it.
pub(crate) fn to_json(adapter: &StoredAdapter) -> Value {
    let (config, options) = (&adapter.config, &adapter.options);
    let of_file = |factors: &StoredFactors| {
        let rank = factors.rank();
        (rank, config.scaling.alpha(factors.scale, rank))
    };
    // What most modules have; by name the first of as many.
    let mut counts: Vec<((usize, f64), usize)> = Vec::new();
    for (rank, alpha) in adapter.modules.values().map(of_file) {
        match counts
            .iter_mut()
            .find(|((r, a), _)| *r == rank && same(*a, alpha))
        {
            Some((_, count)) => *count += 1,
            None => counts.push(((rank, alpha), 1)),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max();
    let first = counts.iter().find(|(_, count)| Some(*count) == most);
    let (rank, alpha) = first.map_or((config.rank, config.alpha), |(both, _)| *both);
    let mut rank_pattern = Map::new();
    let mut alpha_pattern = Map::new();
    for (module, factors) in &adapter.modules {
        let (module_rank, module_alpha) = of_file(factors);
        let key = || regex::escape(module);
        if module_rank != rank {
            rank_pattern.insert(key(), module_rank.into());
        }
        if !same(module_alpha, alpha) {
            alpha_pattern.insert(key(), number(module_alpha));
        }
    }
    let targets = match &config.targets {
        TargetModules::AllLinear => json!(TargetModules::ALL_LINEAR),
        TargetModules::Pattern(pattern) => json!(pattern),
        TargetModules::Names(names) => {
            let plain = |name: &String| name.split('[').next().unwrap_or(name).to_string();
            json!(names.iter().map(plain).collect::<Vec<_>>())
        }
    };
    json!({
        "alpha_pattern": alpha_pattern,
        "auto_mapping": null,
        "base_model_name_or_path": options.base_model,
        "bias": config.bias,
        "exclude_modules": config.exclude,
        "fan_in_fan_out": options.fan_in_fan_out,
        "inference_mode": true,
        "init_lora_weights": match config.init {
            LoraInit::Gaussian | LoraInit::Orthogonal => json!(config.init),
            LoraInit::Random => json!(false),
            // What was read from PEFT unconverted is written so again.
            LoraInit::Pissa | LoraInit::Olora if adapter.needs_changed_base() => json!(config.init),
            // Otherwise it is in the file as the change that it became, which fits the original base.
            LoraInit::KaimingUniform
            | LoraInit::Pissa
            | LoraInit::FastPissa { .. }
            | LoraInit::Olora => json!(true),
        },
        "layers_pattern": match config.layers_pattern.is_empty() {
            true => Value::Null,
            false => json!(config.layers_pattern),
        },
        "layers_to_transform": config.layers,
        "lora_alpha": number(alpha),
        "lora_bias": config.lora_bias,
        "lora_dropout": number(config.dropout),
        "modules_to_save": match config.modules_to_save.is_empty() {
            true => Value::Null,
            false => json!(config.modules_to_save),
        },
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": rank_pattern,
        "revision": null,
        "target_modules": targets,
        "task_type": options.task_type,
        "use_dora": config.dora,
        "use_rslora": config.scaling == LoraScaling::RankStabilized,
    })
}

/// Equal but for the rounding of α → scale → α.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

/// Whole numbers without a fraction: PEFT's `lora_alpha` is one, and rounding must not show.
fn number(value: f64) -> Value {
    let whole = value.round();
    if same(value, whole) && whole.abs() < 1e15 {
        json!(whole as i64)
    } else {
        json!(value)
    }
}
