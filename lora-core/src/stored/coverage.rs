//! Whether a configuration and the modules that an adapter has belong together.

use crate::config::{
    BiasTraining, ExcludeModules, LoraConfig, TargetModules, first_match, full_match, patterns,
};
use crate::error::LoraError;
use crate::layout::{ends_in, is_inside};
use regex::Regex;

/// The rank and alpha that a configuration gives each module.
#[derive(Debug)]
pub struct ModulePatterns {
    rank: usize,
    alpha: f64,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl ModulePatterns {
    /// Those of a configuration.
    ///
    /// # Errors
    /// [`LoraError::InvalidPattern`].
    pub fn new(config: &LoraConfig) -> Result<Self, LoraError> {
        Ok(Self {
            rank: config.rank,
            alpha: config.alpha,
            ranks: patterns("rank pattern", &config.rank_pattern)?,
            alphas: patterns("alpha pattern", &config.alpha_pattern)?,
        })
    }

    /// Rank and alpha of a module.
    pub fn of(&self, module: &str) -> (usize, f64) {
        (
            first_match(&self.ranks, module).unwrap_or(self.rank),
            first_match(&self.alphas, module).unwrap_or(self.alpha),
        )
    }
}

/// What of a configuration and of an adapter's tensors has no counterpart in the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unmatched {
    /// Entries of the configuration that no module or parameter is of: what the entry is, and the entry.
    pub entries: Vec<(&'static str, String)>,
    /// Modules that are no target: PEFT would leave their tensors unread.
    pub modules: Vec<String>,
    /// Parameters that no module to save has, and that are no bias that trains.
    pub saved: Vec<String>,
}

/// Compares a configuration with the modules that have factors and the parameters that trained whole.
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
    let mut found = Unmatched::default();
    let mut unused = |what: &'static str, entry: &str, used: bool| {
        if !used {
            found.entries.push((what, entry.to_string()));
        }
    };
    match &config.targets {
        TargetModules::Names(names) => {
            let plain = |name: &String| name.split('[').next().unwrap_or(name).to_string();
            let names: Vec<String> = names.iter().map(plain).collect();
            for name in &names {
                // What trains whole is left out of the targets that name it too.
                let used = modules.iter().any(|module| ends_in(module, name))
                    || saved.iter().any(|parameter| is_inside(parameter, name));
                unused("target module", name, used);
            }
            let is_target = |module: &&str| names.iter().any(|name| ends_in(module, name));
            found.modules = strings(modules.iter().filter(|module| !is_target(module)));
        }
        TargetModules::AllLinear => {}
        TargetModules::Pattern(pattern) => {
            let regex = full_match("target module", pattern)?;
            let used = modules.iter().any(|module| regex.is_match(module));
            unused("target module", pattern, used);
            let others = modules.iter().filter(|module| !regex.is_match(module));
            found.modules = strings(others);
        }
    }
    let excluded: Vec<&&str> = match &config.exclude {
        None => Vec::new(),
        Some(ExcludeModules::Names(names)) => {
            let is_out = |module: &&&str| names.iter().any(|name| ends_in(module, name));
            modules.iter().filter(is_out).collect()
        }
        Some(ExcludeModules::Pattern(pattern)) => {
            let regex = full_match("exclusion", pattern)?;
            modules.iter().filter(|m| regex.is_match(m)).collect()
        }
    };
    found.modules.extend(strings(excluded.into_iter()));
    found.modules.sort();
    found.modules.dedup();
    for (regex, (entry, _)) in patterns("rank pattern", &config.rank_pattern)?
        .iter()
        .zip(&config.rank_pattern)
    {
        let used = modules.iter().any(|module| regex.0.is_match(module));
        unused("rank pattern", entry, used);
    }
    for (regex, (entry, _)) in patterns("alpha pattern", &config.alpha_pattern)?
        .iter()
        .zip(&config.alpha_pattern)
    {
        let used = modules.iter().any(|module| regex.0.is_match(module));
        unused("alpha pattern", entry, used);
    }
    for entry in &config.modules_to_save {
        let used = saved.iter().any(|name| is_inside(name, entry));
        unused("module to save", entry, used);
    }
    let belongs = |name: &&&str| {
        let is_bias = name.ends_with(".bias") && config.bias != BiasTraining::None;
        let mut to_save = config.modules_to_save.iter();
        // Copies of base weights, that PEFT writes beside adapters on embeddings.
        let copy = name.strip_suffix(".base_layer.weight");
        let is_copy = copy.is_some_and(|module| modules.contains(&module));
        is_bias || is_copy || to_save.any(|entry| is_inside(name, entry))
    };
    found.saved = strings(saved.iter().filter(|name| !belongs(name)));
    Ok(found)
}

fn strings<'a>(names: impl Iterator<Item = &'a &'a str>) -> Vec<String> {
    names.map(|name| name.to_string()).collect()
}
