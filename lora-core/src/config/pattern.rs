//! Regular expressions on dotted paths, and the closest names for error messages.

use super::LoraConfig;
use crate::error::LoraError;
use regex::{Regex, RegexBuilder};

/// Limit in bytes on the compiled regular expressions of a file, all together: a megabyte of configuration has room for
/// ten thousand patterns.
const COMPILED_LIMIT: usize = 16 << 20;
/// Bytes that a compiled name needs.
const COMPILED_NAME: usize = 32 << 10;
/// Limit on the number of patterns, above the number of modules of any model.
const PATTERNS_LIMIT: usize = 4096;

/// Compiles a regular expression made of `pattern`, which an error names.
pub(crate) fn compile(
    what: &'static str,
    pattern: &str,
    regex: String,
) -> Result<Regex, LoraError> {
    compile_within(what, pattern, regex, COMPILED_LIMIT)
}

fn compile_within(
    what: &'static str,
    pattern: &str,
    regex: String,
    limit: usize,
) -> Result<Regex, LoraError> {
    let compiled = RegexBuilder::new(&regex).size_limit(limit).build();
    compiled.map_err(|error| LoraError::InvalidPattern {
        what,
        pattern: pattern.into(),
        message: match error {
            regex::Error::Syntax(message) if message.contains("look-around") => {
                "look-around and back-references are not supported; write it without, or list the names".into()
            }
            other => other.to_string(),
        },
    })
}

/// Compiles a regular expression that must match all of a path, as Python's `re.fullmatch`.
pub(super) fn full_match(what: &'static str, pattern: &str) -> Result<Regex, LoraError> {
    compile(what, pattern, format!("^(?:{pattern})$"))
}

/// Returns the paths closest to an entry, or their last components if the entry is a single component.
pub(crate) fn closest<'a>(entry: &str, paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let shown = |path: &'a str| {
        if entry.contains('.') {
            path
        } else {
            path.rsplit('.').next().unwrap_or(path)
        }
    };
    let mut names: Vec<String> = paths.map(|path| shown(path).to_string()).collect();
    names.sort();
    names.dedup();
    let mut names = by_similarity(entry, names);
    names.truncate(5);
    names
}

/// Orders names by their similarity to one that does not exist.
pub(crate) fn by_similarity(name: &str, mut names: Vec<String>) -> Vec<String> {
    let similarity = |other: &String| strsim::jaro_winkler(name, other);
    names.sort_by(|a, b| similarity(b).total_cmp(&similarity(a)));
    names
}

/// Compiles patterns that match the end of a path, each with its value.
fn patterns<T: Copy>(
    what: &'static str,
    entries: &[(String, T)],
) -> Result<Vec<(Regex, T)>, LoraError> {
    if entries.len() > PATTERNS_LIMIT {
        let found = format!("{} entries", entries.len());
        let expected = format!("at most {PATTERNS_LIMIT}");
        return Err(LoraError::invalid_option(what, found, expected));
    }
    let limit = (COMPILED_LIMIT / entries.len().max(1)).max(COMPILED_NAME);
    entries
        .iter()
        .map(|(pattern, value)| {
            let regex = format!(r"^(?:.*\.)?(?:{pattern})$");
            let regex = compile_within(what, pattern, regex, limit)?;
            Ok((regex, *value))
        })
        .collect()
}

/// Returns the value of the first pattern that matches.
fn first_match<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Option<T> {
    let (_, value) = patterns.iter().find(|(regex, _)| regex.is_match(path))?;
    Some(*value)
}

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

    /// Returns the entries of the configuration that match none of these modules: the kind of entry, and the entry.
    pub(crate) fn unused<'a>(
        &self,
        config: &'a LoraConfig,
        modules: &[&str],
    ) -> Vec<(&'static str, &'a str)> {
        let ranks = self.ranks.iter().map(|(regex, _)| regex);
        let ranks = ranks.zip(&config.rank_pattern);
        let ranks = ranks.map(|(regex, (entry, _))| ("rank pattern", regex, entry.as_str()));
        let alphas = self.alphas.iter().map(|(regex, _)| regex);
        let alphas = alphas.zip(&config.alpha_pattern);
        let alphas = alphas.map(|(regex, (entry, _))| ("alpha pattern", regex, entry.as_str()));
        let is_unused = |regex: &Regex| !modules.iter().any(|module| regex.is_match(module));
        ranks
            .chain(alphas)
            .filter(|(_, regex, _)| is_unused(regex))
            .map(|(what, _, entry)| (what, entry))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_all_modules_fit_and_patterns_made_to_fill_memory_do_not() {
        let module = |i: usize| {
            let name = format!("base_model.layers.{i}.self_attention.output_projection.dense");
            (regex::escape(&name), i)
        };
        let all: Vec<(String, usize)> = (0..PATTERNS_LIMIT).map(module).collect();
        let compiled = patterns("rank pattern", &all[..600]).unwrap();
        let name = "model.base_model.layers.7.self_attention.output_projection.dense";
        assert_eq!(first_match(&compiled, name), Some(7));
        // As many as there may be: each still has room for a name.
        assert!(patterns("rank pattern", &all).is_ok());
        // 40 expressions of some megabytes each were compiled once.
        let large: Vec<(String, usize)> = (0..40).map(|i| (format!(r"\w{{200}}{i}"), i)).collect();
        assert!(patterns("rank pattern", &large).is_err());
        let many = vec![("a".to_string(), 1); PATTERNS_LIMIT + 1];
        assert!(patterns("rank pattern", &many).is_err());
    }
}
