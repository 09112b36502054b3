//! Tensors of a PEFT file put together as a stored adapter, without its model.

use super::adapter::{StoredAdapter, StoredFactors, StoredTensor};
use super::config::PeftOptions;
use super::dir::AdapterDir;
use super::names::{PREFIX, TensorRole, split_name, tensor_name};
use super::tensors::AdapterTensors;
use crate::config::{LoraConfig, ModulePatterns, TargetModules};
use crate::error::LoraError;
use crate::files::Directory;
use crate::fingerprint::BASE_KEY;
use crate::layout::LayerKind;
use std::collections::BTreeMap;

impl StoredAdapter {
    /// Reads a PEFT directory.
    ///
    /// # Errors
    /// If a file cannot be read or is malformed, holds no adapter, or some of its names are without PEFT's prefix; if a key of
    /// the configuration is not supported, or the factors of a module do not fit each other or the configuration.
    pub fn read(dir: impl Into<Directory>) -> Result<Self, LoraError> {
        AdapterDir::open(dir)?.read()
    }

    /// Reads a PEFT directory whose module names differ from the model's. Each pair `(from, to)` replaces the start of a
    /// name after PEFT's prefix, and the first match counts. In a file of which only some names have the prefix, the others are
    /// read only if a pair matches.
    ///
    /// # Errors
    /// As [`read`](Self::read), and if two names become one.
    pub fn read_renamed(
        dir: impl Into<Directory>,
        rename: &[(String, String)],
    ) -> Result<Self, LoraError> {
        AdapterDir::open(dir)?.read_renamed(rename)
    }

    /// Puts the tensors of these names in a file together.
    ///
    /// # Errors
    /// As [`read_renamed`](Self::read_renamed).
    pub(super) fn from_tensors(
        file: &AdapterTensors,
        names: &[String],
        config: LoraConfig,
        options: PeftOptions,
        rename: &[(String, String)],
    ) -> Result<Self, LoraError> {
        let mut parts: BTreeMap<String, Parts> = BTreeMap::new();
        let mut saved = BTreeMap::new();
        let plain = |name: &'_ str| match name.strip_prefix(PREFIX) {
            Some(plain) => Some(plain.to_string()),
            None => renamed(name, rename).map(|_| name.to_string()),
        };
        let bare: Vec<&String> = names.iter().filter(|name| plain(name).is_none()).collect();
        if let Some(name) = bare.first() {
            return Err(file.malformed(missing_prefix(name, bare.len())));
        }
        for name in names {
            let tensor = file.read(name)?;
            let plain = plain(name).unwrap_or_default();
            let twice = match split_name(&plain) {
                // It would be lost: no module is saved under such a name.
                None if plain.contains(".lora_") => {
                    let message =
                        format!("holds `{name}`, which is no name of a tensor of PEFT's LoRA");
                    return Err(file.malformed(message));
                }
                None => saved.insert(plain, tensor).is_some(),
                Some((module, role, kind)) => {
                    let parts = parts.entry(module.to_string()).or_default();
                    parts.kind = kind.or(parts.kind);
                    parts.tensors.insert(role, tensor).is_some()
                }
            };
            if twice {
                let message = format!(
                    "holds tensor `{name}` twice, with PEFT's prefix and without, or of two kinds of layers"
                );
                return Err(file.malformed(message));
            }
        }
        let patterns = ModulePatterns::new(&config)?;
        let mut modules = BTreeMap::new();
        for (module, parts) in parts {
            let factors = parts.factors(&module, file, &config, &patterns)?;
            modules.insert(module, factors);
        }
        let adapter = Self {
            config,
            options,
            modules,
            saved,
            metadata: file.metadata().clone(),
        };
        adapter.renamed(file, rename)
    }

    /// Returns the adapter with other beginnings of its names. Targets become the modules there are, and the fingerprint
    /// of the base is left out if a name changes: it was of a model with the old ones.
    fn renamed(
        mut self,
        file: &AdapterTensors,
        rename: &[(String, String)],
    ) -> Result<Self, LoraError> {
        let name = |old: &str| renamed(old, rename).unwrap_or_else(|| old.to_string());
        let mut names = self.modules.keys().chain(self.saved.keys());
        if names.all(|old| name(old) == *old) {
            return Ok(self);
        }
        let slices = self.slices()?;
        self.metadata.remove(BASE_KEY);
        self.modules = keys_renamed(file, self.modules, name)?;
        self.saved = keys_renamed(file, self.saved, name)?;
        self.note_slices(slices.into_iter().map(|(old, slices)| (name(&old), slices)));
        let config = &mut self.config;
        config.targets = TargetModules::names(self.modules.keys().cloned());
        config.exclude = None;
        config.layers = None;
        config.layers_pattern.clear();
        let to_save = config.modules_to_save.iter_mut();
        to_save.for_each(|module| *module = name(module));
        let tokens = config.token_indices.iter_mut();
        let modules = tokens.filter_map(|tokens| tokens.module.as_mut());
        modules.for_each(|module| *module = name(module));
        Ok(self)
    }
}

/// Tensors of one adapter while they are gathered.
#[derive(Default)]
struct Parts {
    kind: Option<LayerKind>,
    tensors: BTreeMap<TensorRole, StoredTensor>,
}

impl Parts {
    fn factors(
        mut self,
        module: &str,
        file: &AdapterTensors,
        config: &LoraConfig,
        patterns: &ModulePatterns,
    ) -> Result<StoredFactors, LoraError> {
        let kind = self.kind.unwrap_or(LayerKind::Linear);
        let name = |role| tensor_name(module, role, kind);
        let mut take = |role| self.tensors.remove(&role);
        let (Some(a), Some(b)) = (take(TensorRole::A), take(TensorRole::B)) else {
            return Err(
                file.malformed(format!("`{module}` has one factor; an adapter has A and B"))
            );
        };
        let (magnitude, bias) = (take(TensorRole::Magnitude), take(TensorRole::Bias));
        let check = |role, expected: &[usize], found: &StoredTensor| {
            if found.shape == expected {
                return Ok(());
            }
            Err(LoraError::TensorShape {
                path: file.path().into(),
                name: name(role),
                expected: expected.to_vec(),
                found: found.shape.clone(),
            })
        };
        let (rank, alpha) = patterns.rank_and_alpha(module);
        let d_in = a.shape.get(1).copied().unwrap_or(0);
        let d_out = b.shape.first().copied().unwrap_or(0);
        check(TensorRole::A, &[rank, d_in], &a)?;
        check(TensorRole::B, &[d_out, rank], &b)?;
        let vectors = [
            (TensorRole::Magnitude, &magnitude),
            (TensorRole::Bias, &bias),
        ];
        for (role, vector) in vectors {
            if let Some(vector) = vector {
                check(role, &[d_out], vector)?;
            }
        }
        if magnitude.is_some() != config.dora {
            let has = if config.dora { "lacks" } else { "has" };
            return Err(file.malformed(format!(
                "`{module}` {has} a magnitude, and `use_dora` is {}",
                config.dora
            )));
        }
        Ok(StoredFactors {
            kind,
            a,
            b,
            scale: config.scaling.factor(alpha, rank),
            magnitude,
            bias,
        })
    }
}

/// Replaces the beginning of a name by the first replacement that fits; `None` if none does.
fn renamed(name: &str, rename: &[(String, String)]) -> Option<String> {
    rename.iter().find_map(|(from, to)| {
        let rest = name.strip_prefix(from.as_str())?;
        Some(format!("{to}{rest}"))
    })
}

fn keys_renamed<T>(
    file: &AdapterTensors,
    map: BTreeMap<String, T>,
    name: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, T>, LoraError> {
    let mut renamed = BTreeMap::new();
    for (old, value) in map {
        let new = name(&old);
        if renamed.insert(new.clone(), value).is_some() {
            return Err(file.malformed(format!("two of its names become `{new}`")));
        }
    }
    Ok(renamed)
}

/// Returns the message on names without PEFT's prefix.
fn missing_prefix(name: &str, count: usize) -> String {
    let first = name.split('.').next().unwrap_or_default();
    let (more, are) = match count {
        1 => (String::new(), "is"),
        count => (format!(" and {} more", count - 1), "are"),
    };
    format!(
        "`{name}`{more} {are} without PEFT's prefix `{PREFIX}`; where `{first}` is the model's own name for it, convert the \
         adapter with `--rename {first}.={first}.`, otherwise with the model's name on the right"
    )
}
