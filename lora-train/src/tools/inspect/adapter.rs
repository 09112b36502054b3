//! An adapter: its configuration, its modules, and whether they belong together.

use super::config;
use super::module::{self, Expected, Tensors};
use super::names::{place, plain};
use super::report::{AdapterReport, Findings, ModuleReport, Report, TensorReport};
use super::values::{dtypes, elements, tensor};
use crate::TrainError;
use lora_core::file::{
    AdapterKind, CONFIG_FILE, ModulePatterns, PICKLED_FILE, PREFIX, TensorRole, WEIGHTS_FILE,
    peft_names, unmatched,
};
use lora_core::{CLASSIFICATION_HEADS, LoraConfig, LoraInit, LoraScaling};
use lora_models::checkpoint::Checkpoint;
use lora_models::classifier::adapter_labels;
use lora_models::formats::{AdapterFormat, mlx};
use lora_models::prefix::PrefixKind;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Ratio to the median of all updates from which one is reported.
const OUTLIER: f64 = 30.0;
/// Fewest modules that have a meaningful median.
const OUTLIER_MODULES: usize = 4;

/// Returns the format of an adapter directory; `None` if it is none.
pub(super) fn format_of_dir(dir: &Path) -> Option<AdapterFormat> {
    let is_peft = || dir.join(CONFIG_FILE).exists();
    AdapterFormat::detect(dir).or_else(|| is_peft().then_some(AdapterFormat::Peft))
}

/// Returns the format of the adapter that a file of weights holds, by its names; `None` if it holds none.
pub(super) fn format_of_names(checkpoint: &Checkpoint) -> Option<AdapterFormat> {
    use AdapterFormat::{Loralib, Mlx, Peft};
    [Peft, Loralib, Mlx].into_iter().find(|&format| {
        checkpoint.names().any(|name| {
            let marked = format != Mlx || !name.ends_with(".m");
            marked && place(format, plain(format, name)).is_some()
        })
    })
}

/// Describes an adapter in a directory, or a loralib file.
///
/// # Errors
/// If its tensors cannot be read at all.
pub(super) fn describe(
    path: &Path,
    format: AdapterFormat,
    alpha: Option<f64>,
) -> Result<Report, TrainError> {
    let mut report = AdapterReport {
        path: path.display().to_string(),
        ..AdapterReport::default()
    };
    let mut config = None;
    report.format = match format {
        AdapterFormat::Peft => "peft",
        AdapterFormat::Loralib => "loralib",
        AdapterFormat::Mlx => "mlx",
    };
    if format != AdapterFormat::Loralib {
        report.adapters = super::below(path)?;
        config = config::read(path, format, &mut report);
    }
    if format == AdapterFormat::Peft && path.join("config.json").exists() {
        match adapter_labels(path) {
            Ok(labels) => report.labels = Some(super::label_names(&labels)),
            Err(error) => report.unusual.add("config", error),
        }
    }
    if let Some(file) = weights(path, format, &mut report.unusual) {
        add_tensors(
            &mut report,
            &Checkpoint::open(&file)?,
            format,
            config.as_ref(),
            alpha,
        );
        match (format, &config) {
            (AdapterFormat::Peft, Some(config)) => note_unmatched(config, &mut report),
            (AdapterFormat::Peft, None) => {}
            (AdapterFormat::Loralib, _) => note_loralib(&mut report, alpha),
            (AdapterFormat::Mlx, _) => {
                for TensorReport { name, .. } in &report.saved {
                    let message = format!("`{name}` belongs to no module");
                    report.unusual.add_on("extra_tensor", name, message);
                }
            }
        }
        note_prefix(&mut report);
        note_outliers(&report.modules, &mut report.unusual);
    }
    Ok(Report::Adapter(Box::new(report)))
}

/// Returns the file with the tensors, and notes if it is missing or pickled.
fn weights(path: &Path, format: AdapterFormat, unusual: &mut Findings) -> Option<PathBuf> {
    let name = match format {
        AdapterFormat::Loralib => return Some(path.into()),
        AdapterFormat::Mlx => mlx::WEIGHTS_FILE,
        AdapterFormat::Peft => WEIGHTS_FILE,
    };
    if path.join(name).exists() {
        return Some(path.join(name));
    }
    if format == AdapterFormat::Peft && path.join(PICKLED_FILE).exists() {
        let message =
            format!("its tensors are pickled, in {PICKLED_FILE}: `lora convert` writes {name}");
        unusual.add("pickled", message);
        return Some(path.join(PICKLED_FILE));
    }
    unusual.add(
        "missing_tensor",
        format!("{name} is missing: the adapter has no tensors"),
    );
    None
}

/// Adds the modules and the other tensors of a file to the report.
fn add_tensors(
    report: &mut AdapterReport,
    checkpoint: &Checkpoint,
    format: AdapterFormat,
    config: Option<&LoraConfig>,
    alpha: Option<f64>,
) {
    report.file_bytes = checkpoint.file_bytes();
    report.dtypes = dtypes(checkpoint);
    report.metadata = checkpoint.metadata();
    report.metadata.retain(|key, _| key != "format");
    let settings = report.settings.as_ref();
    let own_scale = settings.and_then(|settings| settings.get("scale")?.as_f64());
    let unusual = &mut report.unusual;
    // PEFT's names begin alike in adapters of low rank.
    let kind = report.peft_type.as_deref();
    let low_rank = kind.is_none_or(|kind| kind == AdapterKind::Lora.name());
    let mut modules: BTreeMap<&str, Tensors<'_>> = BTreeMap::new();
    let is_peft = format == AdapterFormat::Peft && low_rank;
    let names = names(checkpoint, is_peft, unusual);
    for (name, in_file) in &names {
        let (short, name) = (plain(format, name), in_file.as_str());
        if is_peft && !name.starts_with(PREFIX) {
            let message = format!("`{name}` does not start with `{PREFIX}`: PEFT ignores it");
            unusual.add_on("no_prefix", name, message);
        }
        if let Some((module, role, kind)) = place(format, short) {
            modules
                .entry(module)
                .or_default()
                .insert(role, (name, kind));
        } else {
            report.saved_parameters += elements(checkpoint, name);
            let mut saved = tensor(checkpoint, name, true, unusual);
            saved.name = short.to_string();
            report.saved.push(saved);
        }
    }
    let patterns = config.and_then(|config| {
        let patterns = ModulePatterns::new(config);
        let patterns = patterns.map_err(|error| unusual.add("config", error));
        Some((config, patterns.ok()?))
    });
    for (module, tensors) in &modules {
        let mut expected = Expected::default();
        if let Some((config, patterns)) = &patterns {
            let (rank, alpha) = patterns.rank_and_alpha(module);
            let scale = config.scaling.factor(alpha, rank);
            expected = Expected {
                rank: Some(rank),
                scale: Some(scale).filter(|scale| scale.is_finite()),
                dora: Some(config.dora),
                lora_bias: Some(config.lora_bias),
            };
        }
        match (format, alpha) {
            (AdapterFormat::Mlx, _) => expected.scale = expected.rank.and(own_scale),
            (AdapterFormat::Loralib, Some(alpha)) => {
                let b = tensors.get(&TensorRole::B);
                let rank = b.and_then(|(name, _)| checkpoint.shape(name)?.get(1));
                let rank = rank.filter(|rank| **rank > 0);
                expected.scale = rank.map(|rank| LoraScaling::Standard.factor(alpha, *rank));
            }
            _ => {}
        }
        let module = module::describe(module, tensors, format, checkpoint, expected, unusual);
        report.parameters += module.parameters;
        report.modules.push(module);
    }
}

/// Returns the names of all tensors, as PEFT writes them if the adapter is PEFT's, each with its name in the file. Notes other
/// spellings.
fn names(
    checkpoint: &Checkpoint,
    is_peft: bool,
    unusual: &mut Findings,
) -> BTreeMap<String, String> {
    if is_peft {
        match peft_names(checkpoint.names()) {
            Ok(found) => {
                for remark in found.remarks {
                    let message = format!("{remark}: read here, and not by PEFT");
                    unusual.add("spelling", message);
                }
                return found.names;
            }
            Err(message) => unusual.add("spelling", format!("it {message}")),
        }
    }
    let names = checkpoint.names();
    names
        .map(|name| (name.to_string(), name.to_string()))
        .collect()
}

fn note_loralib(report: &mut AdapterReport, alpha: Option<f64>) {
    if alpha.is_none() {
        let message =
            "alpha is not in the file: the norms of updates are those of B A; give it with --alpha";
        report.unusual.add("no_alpha", message);
    }
    let ranks: BTreeSet<usize> = report.modules.iter().filter_map(|m| m.rank).collect();
    if ranks.len() > 1 {
        let ranks = Vec::from_iter(ranks);
        report.unusual.add(
            "rank",
            format!("its modules have different ranks, {ranks:?}"),
        );
    }
}

fn note_unmatched(config: &LoraConfig, report: &mut AdapterReport) {
    let unusual = &mut report.unusual;
    let modules = report.modules.iter().map(|module| module.module.as_str());
    let saved = report.saved.iter().map(|saved| saved.name.as_str());
    let found = match unmatched(config, modules, saved) {
        Ok(found) => found,
        Err(error) => return unusual.add("config", error),
    };
    // PEFT names both for a classifier, whichever its model has.
    let heads = CLASSIFICATION_HEADS;
    let named = |head: &&str| config.modules_to_save.iter().any(|saved| saved == head);
    let is_head = |what: &str, entry: &str| what == "module to save" && heads.contains(&entry);
    let missing = found
        .entries
        .iter()
        .filter(|(what, entry)| is_head(what, entry));
    let one_of_both = heads.iter().all(named) && missing.count() < heads.len();
    for (what, entry) in &found.entries {
        if !(one_of_both && is_head(what, entry)) {
            let message = format!("{what} `{entry}` matches no tensor of the file");
            unusual.add_on("unmatched_entry", entry, message);
        }
    }
    for module in &found.modules {
        let message = format!("`{module}` is not a target of the configuration: PEFT ignores it");
        unusual.add_on("not_a_target", module, message);
    }
    for name in &found.saved {
        let message = format!("`{name}` is neither a factor nor in a module to save");
        unusual.add_on("extra_tensor", name, message);
    }
    let residual = matches!(
        config.init,
        LoraInit::Pissa | LoraInit::FastPissa { .. } | LoraInit::Olora
    );
    if residual && !report.metadata.contains_key("lora_core.init") {
        let message = format!(
            "its factors were initialized from the weight ({}), and their start was subtracted from the base: they are not \
             an update of the original base",
            config.init
        );
        unusual.add("changed_base", message);
    }
}

/// Notes if the one tensor of a prefix is missing, or has another shape than its configuration says.
fn note_prefix(report: &mut AdapterReport) {
    let mut kinds = PrefixKind::ALL.into_iter();
    let peft_type = report.peft_type.as_deref();
    let Some(kind) = kinds.find(|kind| Some(kind.peft_type()) == peft_type) else {
        return;
    };
    let mut saved = report.saved.iter();
    let Some(tensor) = saved.find(|saved| saved.name == "prompt_embeddings") else {
        let message = "`prompt_embeddings` is missing: the file has no prefix";
        return report.unusual.add("missing_tensor", message);
    };
    let keys = ["num_virtual_tokens", "num_layers", "token_dim"];
    let numbers = keys.map(|key| report.config.get(key).and_then(Value::as_u64));
    let [Some(tokens), Some(layers), Some(width)] = numbers else {
        return;
    };
    let per_token = match kind {
        // A key and a value for each layer.
        PrefixKind::KeysAndValues => layers.saturating_mul(2).saturating_mul(width),
        PrefixKind::Embeddings => width,
        PrefixKind::Activations => layers.saturating_mul(width),
    };
    let expected = [tokens, per_token];
    let found: Vec<u64> = tensor.shape.iter().map(|&extent| extent as u64).collect();
    if found != expected {
        let message = format!("`prompt_embeddings` has shape {found:?}, expected {expected:?}");
        report.unusual.add_on("shape", "prompt_embeddings", message);
    }
}

/// Notes updates far larger than the others, by the root of their mean square: modules have different shapes.
fn note_outliers(modules: &[ModuleReport], unusual: &mut Findings) {
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
        let times = size(module).map_or(0.0, |size| size / median);
        if times > OUTLIER {
            let message = format!(
                "`{}`: the root mean square of its update is {times:.0} times the median of all modules",
                module.module
            );
            unusual.add_on("outlier", &module.module, message);
        }
    }
}
