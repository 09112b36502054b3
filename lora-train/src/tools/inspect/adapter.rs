//! An adapter: its configuration, its modules, and whether they belong together.

use super::InspectOptions;
use super::config;
use super::module::{Expected, Tensors};
use super::names::{place, plain};
use super::report::{AdapterReport, ModuleReport, SavedReport, Unusual};
use super::values::{dtypes, elements, measure};
use crate::TrainError;
use lora_core::file::{AdapterKind, CONFIG_FILE, ModulePatterns, PREFIX, WEIGHTS_FILE, unmatched};
use lora_core::{LoraConfig, LoraInit, LoraScaling};
use lora_models::checkpoint::Checkpoint;
use lora_models::classifier::adapter_labels;
use lora_models::formats::{AdapterFormat, mlx};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the file with the tensors that PEFT wrote before safetensors.
pub(super) const PICKLED: &str = "adapter_model.bin";

/// Ratio to the median of all updates from which one is reported.
const OUTLIER: f64 = 30.0;
/// Fewest modules that have a meaningful median.
const OUTLIER_MODULES: usize = 4;

/// Returns the format of an adapter directory; `None` if it is none.
pub(super) fn format_of_dir(dir: &Path) -> Option<AdapterFormat> {
    let is_peft = || dir.join(PICKLED).exists() || dir.join(CONFIG_FILE).exists();
    AdapterFormat::detect(dir).or_else(|| is_peft().then_some(AdapterFormat::Peft))
}

/// Describes an adapter in a directory, or a loralib file.
///
/// # Errors
/// If its tensors cannot be read at all.
pub(super) fn describe(
    path: &Path,
    format: AdapterFormat,
    options: &InspectOptions,
) -> Result<AdapterReport, TrainError> {
    let mut report = AdapterReport {
        path: path.display().to_string(),
        format: match format {
            AdapterFormat::Peft => "peft",
            AdapterFormat::Loralib => "loralib",
            AdapterFormat::Mlx => "mlx",
        },
        adapters: if path.is_dir() {
            super::below(path)?
        } else {
            Vec::new()
        },
        ..AdapterReport::default()
    };
    let mut unusual = Vec::new();
    let found = match format {
        AdapterFormat::Loralib => config::Found::default(),
        _ => config::read(path, format, &mut unusual),
    };
    report.labels = labels(path, format, &mut unusual);
    let Some(file) = weights(path, format, &mut unusual) else {
        report.fill(found, unusual);
        return Ok(report);
    };
    let checkpoint = Checkpoint::open(&file)?;
    report.file_bytes = checkpoint.file_bytes();
    report.dtypes = dtypes(&checkpoint);
    report.metadata = checkpoint.metadata();
    report.metadata.retain(|key, _| key != "format");

    // PEFT's names begin alike in adapters of low rank.
    let lora = AdapterKind::Lora.name();
    let low_rank = found.peft_type.as_deref().is_none_or(|kind| kind == lora);
    let mut modules: BTreeMap<String, Tensors> = BTreeMap::new();
    for name in checkpoint.names() {
        let short = plain(format, name);
        if format == AdapterFormat::Peft && low_rank && short == name {
            let message = format!("`{name}` does not begin with `{PREFIX}`: PEFT leaves it unread");
            unusual.push(Unusual::of("no_prefix", name, message));
        }
        match place(format, short) {
            Some(place) => {
                let module = place.module.to_string();
                modules.entry(module).or_default().put(place, name);
            }
            None => {
                let is_float = checkpoint.dtype(name).is_some_and(|d| d.is_float());
                let mut read = || measure(&checkpoint, name, &mut unusual);
                report.saved_parameters += elements(&checkpoint, name);
                report.saved.push(SavedReport {
                    name: short.to_string(),
                    shape: checkpoint.shape(name).unwrap_or_default().to_vec(),
                    norm: is_float.then(&mut read).flatten().map(|m| m.norm),
                });
            }
        }
    }
    let patterns = found.lora.as_ref().and_then(|config| {
        let patterns = ModulePatterns::new(config);
        let note = |error: &lora_core::LoraError| {
            unusual.push(Unusual::new("config", error.to_string()));
        };
        patterns.inspect_err(note).ok()
    });
    for (module, tensors) in &modules {
        let mut expected = Expected::default();
        if let (Some(config), Some(patterns)) = (&found.lora, &patterns) {
            let (rank, alpha) = patterns.rank_and_alpha(module);
            let by_alpha = config.scaling.factor(alpha, rank);
            expected = Expected {
                rank: Some(rank),
                scale: match format {
                    AdapterFormat::Mlx => found.scale,
                    _ => Some(by_alpha).filter(|scale| scale.is_finite()),
                },
                dora: Some(config.dora),
                lora_bias: Some(config.lora_bias),
            };
        }
        if let (AdapterFormat::Loralib, Some(alpha)) = (format, options.alpha) {
            let rank = tensors.loralib_rank(&checkpoint);
            expected.scale = rank.map(|rank| LoraScaling::Standard.factor(alpha, rank));
        }
        let module = tensors.report(module, format, &checkpoint, expected, &mut unusual);
        report.parameters += module.parameters;
        report.modules.push(module);
    }
    if format == AdapterFormat::Loralib {
        note_loralib(&report.modules, options, &mut unusual);
    }
    if let (Some(config), AdapterFormat::Peft) = (&found.lora, format) {
        note_unmatched(config, &report, &mut unusual);
    }
    if format == AdapterFormat::Mlx {
        for saved in &report.saved {
            let message = format!("`{}` belongs to nothing", saved.name);
            unusual.push(Unusual::of("extra_tensor", &saved.name, message));
        }
    }
    note_prefix(&found, &report, &mut unusual);
    note_outliers(&report.modules, &mut unusual);
    report.fill(found, unusual);
    Ok(report)
}

impl AdapterReport {
    fn fill(&mut self, found: config::Found, unusual: Vec<Unusual>) {
        self.peft_type = found.peft_type;
        self.settings = found.settings;
        self.config = found.raw;
        self.unusual = unusual;
    }
}

/// Returns the file with the tensors, and notes if it is missing or pickled.
fn weights(path: &Path, format: AdapterFormat, unusual: &mut Vec<Unusual>) -> Option<PathBuf> {
    let name = match format {
        AdapterFormat::Loralib => return Some(path.into()),
        AdapterFormat::Mlx => mlx::WEIGHTS_FILE,
        AdapterFormat::Peft => WEIGHTS_FILE,
    };
    if path.join(name).exists() {
        return Some(path.join(name));
    }
    if format == AdapterFormat::Peft && path.join(PICKLED).exists() {
        let message = format!(
            "its tensors are pickled in {PICKLED}; only {name} is loaded: save it again with `safe_serialization=True`"
        );
        unusual.push(Unusual::new("pickled", message));
        return Some(path.join(PICKLED));
    }
    let message = format!("there is no {name}: it has no tensors");
    unusual.push(Unusual::new("missing_tensor", message));
    None
}

fn labels(path: &Path, format: AdapterFormat, unusual: &mut Vec<Unusual>) -> Option<Vec<String>> {
    if format != AdapterFormat::Peft || !path.join("config.json").exists() {
        return None;
    }
    match adapter_labels(path) {
        Ok(labels) => Some(super::label_names(&labels)),
        Err(error) => {
            unusual.push(Unusual::new("config", error.to_string()));
            None
        }
    }
}

fn note_loralib(modules: &[ModuleReport], options: &InspectOptions, unusual: &mut Vec<Unusual>) {
    if options.alpha.is_none() {
        let message =
            "alpha is not in the file: the norms of updates are those of B A; give it with --alpha";
        unusual.push(Unusual::new("no_alpha", message));
    }
    let mut ranks: Vec<usize> = modules.iter().filter_map(|module| module.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    if ranks.len() > 1 {
        let message = format!("its modules have different ranks, {ranks:?}");
        unusual.push(Unusual::new("rank", message));
    }
}

fn note_unmatched(config: &LoraConfig, report: &AdapterReport, unusual: &mut Vec<Unusual>) {
    let modules = report.modules.iter().map(|module| module.module.as_str());
    let saved = report.saved.iter().map(|saved| saved.name.as_str());
    let found = match unmatched(config, modules, saved) {
        Ok(found) => found,
        Err(error) => return unusual.push(Unusual::new("config", error.to_string())),
    };
    // PEFT names both for a classifier, whichever its model has.
    let heads = ["classifier", "score"];
    let named = |head: &&str| config.modules_to_save.iter().any(|saved| saved == head);
    let missing = |head: &&str| {
        let mut entries = found.entries.iter();
        entries.any(|(what, entry)| *what == "module to save" && entry == head)
    };
    let one_of_both = heads.iter().all(named) && !heads.iter().all(missing);
    for (what, entry) in found.entries {
        if what == "module to save" && heads.contains(&entry.as_str()) && one_of_both {
            continue;
        }
        let message = format!("{what} `{entry}` matches no tensor of the file");
        unusual.push(Unusual::of("unmatched_entry", entry, message));
    }
    for module in found.modules {
        let message =
            format!("`{module}` is no target of the configuration: PEFT leaves it unread");
        unusual.push(Unusual::of("not_a_target", module, message));
    }
    for name in found.saved {
        let message = format!("`{name}` belongs to nothing: no factor, and in no module to save");
        unusual.push(Unusual::of("extra_tensor", name, message));
    }
    let residual = matches!(
        config.init,
        LoraInit::Pissa | LoraInit::FastPissa { .. } | LoraInit::Olora
    );
    if residual && !report.metadata.contains_key("lora_core.init") {
        let message = format!(
            "its factors started at the weight ({}), which was taken out of the base: alone they are not the update of \
             the original base",
            config.init
        );
        unusual.push(Unusual::new("changed_base", message));
    }
}

/// Notes if the one tensor of a prefix is missing, or has another shape than its configuration says.
fn note_prefix(found: &config::Found, report: &AdapterReport, unusual: &mut Vec<Unusual>) {
    if found.peft_type.as_deref() != Some(AdapterKind::Prefix.name()) {
        return;
    }
    let number = |key: &str| found.raw.get(key).and_then(Value::as_u64);
    let values = [number("num_layers"), number("token_dim")];
    let mut saved = report.saved.iter();
    let Some(tensor) = saved.find(|saved| saved.name == "prompt_embeddings") else {
        let message = "there is no `prompt_embeddings`: it has no prefix";
        return unusual.push(Unusual::new("missing_tensor", message));
    };
    let (Some(tokens), [Some(layers), Some(width)]) = (number("num_virtual_tokens"), values) else {
        return;
    };
    // A key and a value for each layer.
    let expected = [tokens, layers.saturating_mul(2).saturating_mul(width)];
    let found: Vec<u64> = tensor.shape.iter().map(|&extent| extent as u64).collect();
    if found != expected {
        let message = format!("`prompt_embeddings` has shape {found:?}, expected {expected:?}");
        unusual.push(Unusual::of("shape", "prompt_embeddings", message));
    }
}

/// Notes updates far larger than the others, by the root of their mean square: modules have different shapes.
fn note_outliers(modules: &[ModuleReport], unusual: &mut Vec<Unusual>) {
    let size = |module: &ModuleReport| {
        let [d_out, d_in] = module.shape?;
        let size = module.norm_update? / (d_out as f64 * d_in as f64).sqrt();
        (size.is_finite() && size > 0.0).then_some(size)
    };
    let mut sizes: Vec<f64> = modules.iter().filter_map(size).collect();
    if sizes.len() < OUTLIER_MODULES {
        return;
    }
    sizes.sort_by(f64::total_cmp);
    let median = sizes[sizes.len() / 2];
    for module in modules {
        if let Some(times) = size(module)
            .map(|size| size / median)
            .filter(|t| *t > OUTLIER)
        {
            let message = format!(
                "`{}`: its update is {times:.0} times as large as the median of all, by the mean square of its values",
                module.module
            );
            unusual.push(Unusual::of("outlier", &module.module, message));
        }
    }
}

/// Returns the format of the adapter that a file of weights holds, by its names; `None` if it holds none.
pub(super) fn format_of_names(checkpoint: &Checkpoint) -> Option<AdapterFormat> {
    let all = [
        AdapterFormat::Peft,
        AdapterFormat::Loralib,
        AdapterFormat::Mlx,
    ];
    all.into_iter().find(|&format| {
        let mut names = checkpoint.names();
        names.any(|name| {
            let marked = format != AdapterFormat::Mlx || !name.ends_with(".m");
            marked && place(format, plain(format, name)).is_some()
        })
    })
}
