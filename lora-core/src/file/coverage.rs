//! Comparison of a configuration with the tensors that an adapter has.

use crate::config::{
    BiasTraining, ExcludeModules, LoraConfig, ModulePatterns, TargetModules, without_slices,
};
use crate::error::LoraError;
use crate::layout::{TokenModule, ends_in, is_inside};

/// Names of the modules over the vocabulary in the models that PEFT is used with: an adapter is looked at without its model here,
/// whose [`Architecture::vocabulary`](crate::Architecture::vocabulary) would tell them.
const EMBEDDINGS: [&str; 4] = ["wte", "lm_head", "word_embeddings", "embed_tokens"];

/// Returns true for the name of a module over the vocabulary.
pub(crate) fn is_embedding(module: &str) -> bool {
    EMBEDDINGS.iter().any(|end| ends_in(module, end))
}

/// Parts of a configuration and of an adapter's tensors without a counterpart in the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unmatched {
    /// Entries of the configuration that match no module or parameter: the kind of entry, and the entry.
    pub entries: Vec<(&'static str, String)>,
    /// Modules that are no target: PEFT would leave their tensors unread.
    pub modules: Vec<String>,
    /// Parameters in no module to save that are no trained bias either.
    pub saved: Vec<String>,
}

/// Compares a configuration with the modules that have factors and the parameters that were fully trained.
///
/// # Errors
/// [`LoraError::InvalidPattern`].
pub fn unmatched<'a>(
    config: &LoraConfig,
    modules: impl IntoIterator<Item = &'a str>,
    saved: impl IntoIterator<Item = &'a str>,
) -> Result<Unmatched, LoraError> {
    let modules: Vec<&str> = modules.into_iter().collect();
    let saved: Vec<&str> = saved.into_iter().collect();
    let mut entries: Vec<(&'static str, &str)> = Vec::new();
    let targets = config.targets.selector()?;
    match &config.targets {
        // A fully trained module is left out of the targets that name it too.
        TargetModules::Names(names) => {
            let names = names.iter().map(|name| without_slices(name));
            let unused = names.filter(|name| {
                let is_target = modules.iter().any(|module| ends_in(module, name));
                !is_target && !saved.iter().any(|parameter| is_inside(parameter, name))
            });
            entries.extend(unused.map(|name| ("target module", name)));
        }
        TargetModules::Pattern(pattern) if !modules.iter().any(|m| targets.selects(m)) => {
            entries.push(("target module", pattern));
        }
        TargetModules::Pattern(_) | TargetModules::AllLinear => {}
    }
    let excluded = config.exclude.as_ref().map(ExcludeModules::selector);
    let excluded = excluded.transpose()?;
    entries.extend(ModulePatterns::new(config)?.unused(config, &modules));
    let to_save = config.modules_to_save.iter();
    let to_save = to_save.filter(|entry| !saved.iter().any(|name| is_inside(name, entry)));
    entries.extend(to_save.map(|entry| ("module to save", entry.as_str())));
    let is_target = |module: &str| {
        let is_excluded = excluded
            .as_ref()
            .is_some_and(|excluded| excluded.selects(module));
        targets.selects(module) && !is_excluded
    };
    let mut found = Unmatched::default();
    let entries = entries.into_iter();
    found.entries = entries
        .map(|(what, entry)| (what, entry.to_string()))
        .collect();
    found.modules = modules
        .iter()
        .filter(|module| !is_target(module))
        .map(|module| module.to_string())
        .collect();
    found.modules.sort();
    found.modules.dedup();
    let belongs = |name: &str| {
        let is_bias = name.ends_with(".bias") && config.bias != BiasTraining::None;
        // Copies of base weights, that PEFT writes beside adapters on embeddings.
        let copy = name.strip_suffix(".base_layer.weight");
        // PEFT writes embeddings with a new vocabulary too.
        let module = name.strip_suffix(".weight").unwrap_or_default();
        let is_copy = is_embedding(module) || copy.is_some_and(|module| modules.contains(&module));
        let mut to_save = config.modules_to_save.iter();
        let is_tokens = name.ends_with(TokenModule::SUFFIX) && !config.token_indices.is_empty();
        is_bias || is_copy || is_tokens || to_save.any(|entry| is_inside(name, entry))
    };
    let others = saved.iter().filter(|name| !belongs(name));
    found.saved = others.map(|name| name.to_string()).collect();
    Ok(found)
}
