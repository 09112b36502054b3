//! Reading a PEFT directory without its model.

use super::rename::{missing_prefix, renamed};
use super::{ModulePatterns, StoredAdapter, StoredFactors, StoredTensor};
use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::layout::LayerKind;
use crate::peft::read_config_and_options;
use crate::peft::tensors::{PREFIX, WEIGHTS_FILE};
use crate::peft::values::AdapterFile;
use std::collections::BTreeMap;
use std::path::Path;

/// A classifier's labels, which PEFT has no place for, and other small files that belong to an adapter.
const COMPANIONS: &[&str] = &["config.json"];
/// None of them is anywhere near this size.
const COMPANION_LIMIT: u64 = 1 << 20;

/// The small files beside an adapter, by name.
pub(crate) fn companions(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, LoraError> {
    let mut found = Vec::new();
    for name in COMPANIONS {
        let path = dir.join(name);
        if path.is_file() {
            let bytes = crate::files::read_bounded(&path, COMPANION_LIMIT)?;
            found.push((name.to_string(), bytes));
        }
    }
    Ok(found)
}

/// The tensors of one adapter while they are gathered.
#[derive(Default)]
struct Parts {
    a: Option<StoredTensor>,
    b: Option<StoredTensor>,
    magnitude: Option<StoredTensor>,
    bias: Option<StoredTensor>,
    embedding: bool,
}

impl StoredAdapter {
    /// Reads a PEFT directory.
    ///
    /// # Errors
    /// If a file cannot be read or is malformed, a key of the configuration is not supported, a name is
    /// without PEFT's prefix, or the factors of a module do not fit each other or the configuration.
    pub fn read(dir: &Path) -> Result<Self, LoraError> {
        Self::read_renamed(dir, &[])
    }

    /// [`read`](Self::read) for a directory whose modules are called otherwise than the model's: the beginnings of
    /// names, behind PEFT's prefix, are replaced, `(from, to)`; the first that fits counts. Names without the prefix are
    /// taken where one fits: a state dict that was saved by itself.
    ///
    /// # Errors
    /// As [`read`](Self::read), and if two names become one.
    pub fn read_renamed(dir: &Path, rename: &[(String, String)]) -> Result<Self, LoraError> {
        let (config, mut options) = read_config_and_options(dir)?;
        options.companions = companions(dir)?;
        let path = dir.join(WEIGHTS_FILE);
        let bytes = std::fs::read(&path).map_err(LoraError::io(&path))?;
        let file = AdapterFile::new(&path, &bytes)?;
        let mut parts: BTreeMap<String, Parts> = BTreeMap::new();
        let mut saved = BTreeMap::new();
        let mut unexpected = Vec::new();
        for name in file.tensors.names() {
            let fits = || renamed(name, rename).is_some();
            let Some(plain) = name.strip_prefix(PREFIX).or(fits().then_some(name)) else {
                unexpected.push(name.to_string());
                continue;
            };
            let shape = file
                .tensors
                .tensor(name)
                .map_or(Vec::new(), |t| t.shape().to_vec());
            let tensor = StoredTensor::new(shape.clone(), file.values(name, &shape)?);
            match split(plain) {
                None => {
                    saved.insert(plain.to_string(), tensor);
                }
                Some((module, suffix)) => parts
                    .entry(module.to_string())
                    .or_default()
                    .put(suffix, tensor),
            }
        }
        unexpected.sort();
        if let Some(name) = unexpected.first() {
            let message = missing_prefix(name, unexpected.len());
            return Err(LoraError::Malformed { path, message });
        }
        let modules = factors(&path, parts, &config)?;
        let adapter = Self {
            config,
            options,
            modules,
            saved,
            metadata: file.metadata,
        };
        if adapter.tensors().len() != file.tensors.len() {
            let message = "holds a tensor twice, with PEFT's prefix and without".into();
            return Err(LoraError::Malformed { path, message });
        }
        match rename {
            [] => Ok(adapter),
            _ => adapter.renamed(&path, rename),
        }
    }
}

const SUFFIXES: [&str; 6] = [
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".lora_magnitude_vector",
    ".lora_B.bias",
];

/// The module and what of its adapter a tensor is.
fn split(name: &str) -> Option<(&str, &'static str)> {
    let suffix = SUFFIXES.iter().find(|suffix| name.ends_with(**suffix))?;
    Some((name.strip_suffix(suffix)?, suffix))
}

impl Parts {
    fn put(&mut self, suffix: &str, tensor: StoredTensor) {
        self.embedding |= suffix.starts_with(".lora_embedding");
        let part = match suffix {
            ".lora_A.weight" | ".lora_embedding_A" => &mut self.a,
            ".lora_B.weight" | ".lora_embedding_B" => &mut self.b,
            ".lora_magnitude_vector" => &mut self.magnitude,
            _ => &mut self.bias,
        };
        *part = Some(tensor);
    }
}

fn factors(
    path: &Path,
    parts: BTreeMap<String, Parts>,
    config: &LoraConfig,
) -> Result<BTreeMap<String, StoredFactors>, LoraError> {
    let patterns = ModulePatterns::new(config)?;
    let mut modules = BTreeMap::new();
    for (module, parts) in parts {
        let kind = match parts.embedding {
            true => LayerKind::Embedding,
            false => LayerKind::Linear,
        };
        let (Some(a), Some(b)) = (parts.a, parts.b) else {
            return Err(LoraError::Malformed {
                path: path.into(),
                message: format!("`{module}` has one factor; an adapter has A and B"),
            });
        };
        let (rank, alpha) = patterns.of(&module);
        let of_module = |name: &str, expected: Vec<usize>, found: &StoredTensor| {
            if found.shape == expected {
                return Ok(());
            }
            Err(LoraError::TensorShape {
                path: path.into(),
                name: format!("{module}.{name}"),
                expected,
                found: found.shape.clone(),
            })
        };
        of_module("lora_A", vec![rank, *a.shape.get(1).unwrap_or(&0)], &a)?;
        of_module("lora_B", vec![*b.shape.first().unwrap_or(&0), rank], &b)?;
        let d_out = b.shape[0];
        for (name, vector) in [
            ("lora_magnitude_vector", &parts.magnitude),
            ("lora_B.bias", &parts.bias),
        ] {
            if let Some(vector) = vector {
                of_module(name, vec![d_out], vector)?;
            }
        }
        if parts.magnitude.is_some() != config.dora {
            return Err(LoraError::Malformed {
                path: path.into(),
                message: format!(
                    "`{module}` {} a magnitude, and `use_dora` is {}",
                    if config.dora { "lacks" } else { "has" },
                    config.dora
                ),
            });
        }
        let factors = StoredFactors {
            kind,
            a,
            b,
            scale: config.scaling.factor(alpha, rank),
            magnitude: parts.magnitude,
            bias: parts.bias,
        };
        modules.insert(module, factors);
    }
    Ok(modules)
}
