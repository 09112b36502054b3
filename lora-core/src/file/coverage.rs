//! Comparison of a configuration with the tensors that an adapter has.

use crate::config::{
    BiasTraining, ExcludeModules, LoraConfig, TargetModules, first_match, full_match, patterns,
};
use crate::error::LoraError;
use crate::layout::{ends_in, is_inside};
use regex::Regex;

/// Rank and alpha that a configuration gives each module.
#[derive(Debug)]
pub struct ModulePatterns {
    rank: usize,
    alpha: f64,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl ModulePatterns {
    /// Compiles the patterns of a configuration.
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

    /// Returns rank and alpha of a module.
    pub fn rank_and_alpha(&self, module: &str) -> (usize, f64) {
        (
            first_match(&self.ranks, module).unwrap_or(self.rank),
            first_match(&self.alphas, module).unwrap_or(self.alpha),
        )
    }
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

/// Selection of modules by a configuration, without a model.
enum Selector<'a> {
    Names(&'a [String]),
    Regex(Regex),
    All,
}

impl Selector<'_> {
    fn selects(&self, module: &str) -> bool {
        match self {
            Self::Names(names) => names.iter().any(|name| ends_in(module, plain(name))),
            Self::Regex(regex) => regex.is_match(module),
            Self::All => true,
        }
    }
}

/// Returns the name of a target without its slices.
fn plain(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
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
    let mut found = Unmatched::default();
    let mut check = |what: &'static str, entry: &str, used: bool| {
        if !used {
            found.entries.push((what, entry.to_string()));
        }
    };
    let any_module = |selects: &dyn Fn(&str) -> bool| modules.iter().any(|module| selects(module));
    let targets = match &config.targets {
        TargetModules::Names(names) => {
            for name in names.iter().map(|name| plain(name)) {
                // A fully trained module is left out of the targets that name it too.
                let used = any_module(&|module| ends_in(module, name))
                    || saved.iter().any(|parameter| is_inside(parameter, name));
                check("target module", name, used);
            }
            Selector::Names(names)
        }
        TargetModules::AllLinear => Selector::All,
        TargetModules::Pattern(pattern) => {
            let regex = full_match("target module", pattern)?;
            check("target module", pattern, any_module(&|m| regex.is_match(m)));
            Selector::Regex(regex)
        }
    };
    let excluded = match &config.exclude {
        None => Selector::Names(&[]),
        Some(ExcludeModules::Names(names)) => Selector::Names(names),
        Some(ExcludeModules::Pattern(pattern)) => {
            Selector::Regex(full_match("exclusion", pattern)?)
        }
    };
    let ranks = patterns("rank pattern", &config.rank_pattern)?;
    for ((regex, _), (entry, _)) in ranks.iter().zip(&config.rank_pattern) {
        check("rank pattern", entry, any_module(&|m| regex.is_match(m)));
    }
    let alphas = patterns("alpha pattern", &config.alpha_pattern)?;
    for ((regex, _), (entry, _)) in alphas.iter().zip(&config.alpha_pattern) {
        check("alpha pattern", entry, any_module(&|m| regex.is_match(m)));
    }
    for entry in &config.modules_to_save {
        let used = saved.iter().any(|name| is_inside(name, entry));
        check("module to save", entry, used);
    }
    found.modules = modules
        .iter()
        .filter(|module| !targets.selects(module) || excluded.selects(module))
        .map(|module| module.to_string())
        .collect();
    found.modules.sort();
    found.modules.dedup();
    let belongs = |name: &str| {
        let is_bias = name.ends_with(".bias") && config.bias != BiasTraining::None;
        // Copies of base weights, that PEFT writes beside adapters on embeddings.
        let copy = name.strip_suffix(".base_layer.weight");
        let is_copy = copy.is_some_and(|module| modules.contains(&module));
        let mut to_save = config.modules_to_save.iter();
        is_bias || is_copy || to_save.any(|entry| is_inside(name, entry))
    };
    let others = saved.iter().filter(|name| !belongs(name));
    found.saved = others.map(|name| name.to_string()).collect();
    Ok(found)
}
