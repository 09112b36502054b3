//! A stored adapter, written as a PEFT directory.

use super::adapter::{StoredAdapter, StoredFactors, StoredTensor};
use super::config::CONFIG_FILE;
use super::names::{PREFIX, TensorRole, tensor_name};
use super::tensors::WEIGHTS_FILE;
use crate::config::{LoraConfig, LoraInit, LoraScaling, TargetModules, TrainableTokens};
use crate::error::LoraError;
use crate::files::{Overwrite, create_folder_of, write_dir, write_file};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::Path;

impl StoredAdapter {
    /// Writes a PEFT directory, atomically.
    ///
    /// # Errors
    /// [`LoraError::AlreadyExists`] if the directory exists and may not be replaced, or [`LoraError::Io`].
    pub fn save(&self, dir: &Path, overwrite: Overwrite) -> Result<(), LoraError> {
        let weights = self.weights(dir)?;
        write_dir(dir, overwrite, |dir| self.put(dir, &weights))
    }

    /// Writes the files into an existing directory that is being filled.
    pub(crate) fn save_into(&self, dir: &Path) -> Result<(), LoraError> {
        self.put(dir, &self.weights(dir)?)
    }

    /// Returns all tensors by their name in PEFT's file.
    pub fn tensors(&self) -> Vec<(String, &StoredTensor)> {
        let mut tensors = Vec::new();
        for (module, factors) in &self.modules {
            let roles = [
                (TensorRole::A, Some(&factors.a)),
                (TensorRole::B, Some(&factors.b)),
                (TensorRole::Magnitude, factors.magnitude.as_ref()),
                (TensorRole::Bias, factors.bias.as_ref()),
            ];
            let present = roles.into_iter().filter_map(|(role, tensor)| {
                Some((tensor_name(module, role, factors.kind), tensor?))
            });
            tensors.extend(present);
        }
        let saved = self.saved.iter();
        tensors.extend(saved.map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor)));
        tensors
    }

    /// Returns the content of the file with the tensors, for the directory `dir`.
    fn weights(&self, dir: &Path) -> Result<Vec<u8>, LoraError> {
        let malformed = |error: safetensors::SafeTensorError| {
            LoraError::malformed(dir.join(WEIGHTS_FILE), error.to_string())
        };
        let tensors = self.tensors().into_iter().map(|(name, tensor)| {
            let bytes = tensor.values.iter().flat_map(|value| value.to_le_bytes());
            (name, tensor.shape.clone(), bytes.collect::<Vec<u8>>())
        });
        let tensors: Vec<_> = tensors.collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes)?;
            Ok((name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
        let mut metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        metadata.extend(self.metadata.clone());
        safetensors::serialize(views, Some(metadata)).map_err(malformed)
    }

    /// Writes the files: the configuration first, the tensors last.
    fn put(&self, dir: &Path, weights: &[u8]) -> Result<(), LoraError> {
        let put = |name: &str, bytes: &[u8]| {
            write_file(&dir.join(name), Overwrite::Refuse, |w| w.write_all(bytes))
        };
        put(
            CONFIG_FILE,
            format!("{:#}\n", self.config_json()).as_bytes(),
        )?;
        for (name, bytes) in &self.options.companions {
            create_folder_of(&dir.join(name))?;
            put(name, bytes)?;
        }
        put(WEIGHTS_FILE, weights)
    }
}

impl StoredAdapter {
    /// Returns the configuration that a file of this adapter has: rank, alpha and their patterns are those of the
    /// modules, targets name no slices, and an init that the tensors hold as a difference is none.
    pub(crate) fn file_config(&self) -> LoraConfig {
        let mut config = self.config.clone();
        let in_file = |factors: &StoredFactors| {
            let rank = factors.rank();
            (rank, rounded(config.scaling.alpha(factors.scale, rank)))
        };
        // The most frequent pair; the first by name of several such.
        let mut counts: Vec<((usize, f64), usize)> = Vec::new();
        for (rank, alpha) in self.modules.values().map(in_file) {
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
        let (rank, alpha) = first.map_or((config.rank, rounded(config.alpha)), |(both, _)| *both);
        let (mut rank_pattern, mut alpha_pattern) = (Vec::new(), Vec::new());
        for (module, factors) in &self.modules {
            let (module_rank, module_alpha) = in_file(factors);
            if module_rank != rank {
                rank_pattern.push((regex::escape(module), module_rank));
            }
            if !same(module_alpha, alpha) {
                alpha_pattern.push((regex::escape(module), module_alpha));
            }
        }
        (config.rank, config.alpha) = (rank, alpha);
        (config.rank_pattern, config.alpha_pattern) = (rank_pattern, alpha_pattern);
        if let TargetModules::Names(names) = &mut config.targets {
            for name in names {
                name.truncate(name.find('[').unwrap_or(name.len()));
            }
        }
        config.init = match config.init {
            // What was read from PEFT unconverted is written so again.
            LoraInit::Pissa | LoraInit::Olora if self.needs_changed_base() => config.init,
            // Otherwise it is in the file as the change that it became, which fits the original base.
            LoraInit::Pissa | LoraInit::FastPissa { .. } | LoraInit::Olora => {
                LoraInit::KaimingUniform
            }
            init => init,
        };
        if config.layers.is_none() {
            config.layers_pattern.clear();
        }
        config
    }

    /// Returns `adapter_config.json` as PEFT reads it without a warning.
    fn config_json(&self) -> Value {
        let (config, options) = (self.file_config(), &self.options);
        let ranks = config.rank_pattern.iter();
        let ranks: Map<String, Value> = ranks.map(|(k, r)| (k.clone(), json!(r))).collect();
        let alphas = config.alpha_pattern.iter();
        let alphas: Map<String, Value> = alphas.map(|(k, a)| (k.clone(), number(*a))).collect();
        let or_null = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
        let mut object = json!({
            "alpha_pattern": alphas,
            "auto_mapping": null,
            "base_model_name_or_path": options.base_model,
            "bias": config.bias,
            "exclude_modules": config.exclude,
            "fan_in_fan_out": options.fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": match config.init {
                LoraInit::KaimingUniform => json!(true),
                LoraInit::Random => json!(false),
                init => json!(init),
            },
            "layers_pattern": or_null(&config.layers_pattern),
            "layers_to_transform": config.layers,
            "lora_alpha": number(config.alpha),
            "lora_bias": config.lora_bias,
            "lora_dropout": number(config.dropout),
            "modules_to_save": or_null(&config.modules_to_save),
            "peft_type": "LORA",
            "r": config.rank,
            "rank_pattern": ranks,
            "revision": null,
            "target_modules": config.targets,
            "task_type": options.task_type,
            "use_dora": config.dora,
            "use_rslora": config.scaling == LoraScaling::RankStabilized,
        });
        // Older versions of PEFT warn about keys that they do not know.
        if config.ensure_weight_tying {
            object["ensure_weight_tying"] = json!(true);
        }
        match config.token_indices.as_slice() {
            [] => {}
            [TrainableTokens { module: None, ids }] => {
                object["trainable_token_indices"] = json!(ids);
            }
            modules => {
                let modules = modules.iter().filter_map(|tokens| {
                    let module = tokens.module.clone()?;
                    Some((module, json!(tokens.ids)))
                });
                object["trainable_token_indices"] = modules.collect::<Map<_, _>>().into();
            }
        }
        object
    }
}

/// Returns true if two numbers are equal but for the rounding of alpha → scale → alpha.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

/// Returns the whole number that a value is but for rounding, else the value.
fn rounded(value: f64) -> f64 {
    let whole = value.round();
    if same(value, whole) { whole } else { value }
}

/// Writes whole numbers without a fraction: PEFT's `lora_alpha` is one.
fn number(value: f64) -> Value {
    let value = rounded(value);
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}
