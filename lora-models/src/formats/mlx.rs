//! Adapters of mlx-lm.
//!
//! | in `adapters.safetensors` | here |
//! | --- | --- |
//! | `{module}.lora_a` `[d_in, r]`, `.lora_b` `[r, d_out]` | transposed |
//! | `{module}.m` `[d_out]` | DoRA's magnitude |
//!
//! `adapter_config.json` holds `lora_parameters`: `rank`, `dropout` and `scale`, the factor of the update.

use super::{Parts, Rename, back, only_factors, refs, renamed, require, stored, unsupported};
use crate::ModelError;
use crate::checkpoint::{Checkpoint, ExportDType, write_safetensors};
use lora_core::file::{CONFIG_FILE, PeftOptions};
use lora_core::file::{StoredAdapter, StoredFactors, StoredTensor};
use lora_core::files::{Overwrite, read_bounded, write_dir, write_file};
use lora_core::{LayerKind, LoraConfig, LoraScaling, TargetModules};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the file with the tensors.
pub const WEIGHTS_FILE: &str = "adapters.safetensors";
const CONFIG_LIMIT: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Config {
    #[serde(default = "lora")]
    fine_tune_type: String,
    lora_parameters: Parameters,
    /// Number of adapted layers, counted from the last; -1 for all.
    #[serde(default = "all_layers")]
    num_layers: i64,
}

fn lora() -> String {
    "lora".into()
}

fn all_layers() -> i64 {
    -1
}

#[derive(Serialize, Deserialize)]
struct Parameters {
    rank: usize,
    scale: f64,
    #[serde(default)]
    dropout: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<String>>,
}

/// Reads an mlx-lm directory.
///
/// # Errors
/// If a file cannot be read or is malformed, or a tensor is not part of an adapter.
pub fn read(dir: &Path, rename: &Rename, peft: PeftOptions) -> Result<StoredAdapter, ModelError> {
    let path = dir.join(CONFIG_FILE);
    let bytes = read_bounded(&path, CONFIG_LIMIT)?;
    let config: Config = serde_json::from_slice(&bytes).map_err(|error| {
        ModelError::malformed(&path, format!("not a configuration of mlx-lm: {error}"))
    })?;
    let dora = match config.fine_tune_type.as_str() {
        "lora" => false,
        "dora" => true,
        other => {
            let message = format!("`fine_tune_type` is {other}, expected lora or dora");
            return Err(ModelError::malformed(&path, message));
        }
    };
    // Empty factors may have any other extent: transposing them would never end.
    let Parameters {
        rank,
        scale,
        dropout,
        ..
    } = config.lora_parameters;
    if rank == 0 {
        let message = "`rank` is 0, expected at least 1";
        return Err(ModelError::malformed(&path, message));
    }
    let path = dir.join(WEIGHTS_FILE);
    let file = Checkpoint::open(&path)?;
    let tensor = |name: &str| stored(&file, name);
    let mut modules = BTreeMap::new();
    for name in file.names() {
        let mut known = [".lora_a", ".lora_b", ".m"].iter();
        let Some(module) = known.find_map(|suffix| name.strip_suffix(suffix)) else {
            let (path, names) = (path.clone(), vec![name.to_string()]);
            return Err(ModelError::TensorUnexpected { path, names });
        };
        if !name.ends_with(".lora_a") {
            require(&file, &format!("{module}.lora_a"))?;
            continue;
        }
        let (a, b) = (tensor(name)?, tensor(&format!("{module}.lora_b"))?);
        let fit =
            |a: &[usize], b: &[usize]| matches!((a, b), (&[_, x], &[y, _]) if [x, y] == [rank; 2]);
        if !fit(&a.shape, &b.shape) {
            let message = format!(
                "`{module}` has factors {:?} and {:?}, expected [d_in, {rank}] and [{rank}, d_out]",
                a.shape, b.shape
            );
            return Err(ModelError::malformed(&path, message));
        }
        let magnitude = dora.then(|| tensor(&format!("{module}.m"))).transpose()?;
        let factors = StoredFactors {
            kind: LayerKind::Linear,
            a: a.transposed(),
            b: b.transposed(),
            scale,
            magnitude,
            bias: None,
        };
        modules.insert(renamed(module, rename), factors);
    }
    if modules.is_empty() {
        let message = "holds no `lora_a` and `lora_b`";
        return Err(ModelError::malformed(&path, message));
    }
    let config = LoraConfig {
        rank,
        alpha: LoraScaling::Standard.alpha(scale, rank),
        dropout,
        dora,
        targets: TargetModules::names(modules.keys().cloned()),
        ..LoraConfig::default()
    };
    config.validate()?;
    Ok(StoredAdapter {
        config,
        options: peft,
        modules,
        saved: BTreeMap::new(),
        metadata: BTreeMap::new(),
    })
}

/// Writes an adapter as an mlx-lm directory.
///
/// # Errors
/// If the adapter has parts that mlx-lm lacks: different ranks or scales, a bias on B, embeddings, fully trained
/// parameters (PEFT's `modules_to_save`). If the directory exists and must not be replaced.
pub fn write(
    adapter: &StoredAdapter,
    dir: &Path,
    rename: &Rename,
    overwrite: Overwrite,
) -> Result<(), ModelError> {
    let refuse = |what: String| Err(unsupported(dir, what, "mlx-lm"));
    let magnitudes = Parts {
        magnitudes: true,
        ..Parts::default()
    };
    only_factors(adapter, dir, "mlx-lm", magnitudes)?;
    if let Some(name) = adapter.saved.keys().next() {
        return refuse(format!("`{name}` is fully trained (`modules_to_save`)"));
    }
    let Some(first) = adapter.modules.values().next() else {
        return refuse("the adapter has no factors".into());
    };
    let rename = back(rename);
    let mut tensors: Vec<(String, StoredTensor)> = Vec::new();
    for (module, factors) in &adapter.modules {
        if (factors.rank(), factors.scale) != (first.rank(), first.scale) {
            return refuse(format!(
                "`{module}` has another rank or scale than the first module"
            ));
        }
        let name = renamed(module, &rename);
        tensors.push((format!("{name}.lora_a"), factors.a.transposed()));
        tensors.push((format!("{name}.lora_b"), factors.b.transposed()));
        if let Some(magnitude) = &factors.magnitude {
            tensors.push((format!("{name}.m"), magnitude.clone()));
        }
    }
    let config = Config {
        fine_tune_type: if adapter.config.dora { "dora" } else { "lora" }.into(),
        num_layers: all_layers(),
        lora_parameters: Parameters {
            rank: first.rank(),
            scale: first.scale,
            dropout: adapter.config.dropout,
            keys: None,
        },
    };
    write_dir(dir, overwrite, |dir| {
        write_safetensors(dir.join(WEIGHTS_FILE), &refs(&tensors), ExportDType::F32)?;
        let json = serde_json::to_string_pretty(&config).unwrap_or_default();
        write_file(&dir.join(CONFIG_FILE), Overwrite::Refuse, |file| {
            writeln!(file, "{json}")
        })?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{ExportDType, TensorRef, write_safetensors};

    #[test]
    fn factors_of_rank_0_end_in_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let config = r#"{"lora_parameters": {"rank": 0, "scale": 2.0}}"#;
        std::fs::write(dir.path().join(CONFIG_FILE), config).unwrap();
        let factor = |name, shape| TensorRef {
            name,
            shape,
            values: &[],
        };
        let tensors = [
            factor("q.lora_a", &[1 << 60, 0]),
            factor("q.lora_b", &[0, 1 << 60]),
        ];
        write_safetensors(dir.path().join(WEIGHTS_FILE), &tensors, ExportDType::F32).unwrap();
        let error = read(dir.path(), &Rename::new(), PeftOptions::default()).unwrap_err();
        assert!(error.to_string().contains("`rank` is 0"), "{error}");
    }
}
