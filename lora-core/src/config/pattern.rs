//! Regular expressions on dotted paths, and the closest names for error messages.

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
pub(crate) fn full_match(what: &'static str, pattern: &str) -> Result<Regex, LoraError> {
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
    names.sort_by(|a, b| {
        let similarity = |name: &str| strsim::jaro_winkler(entry, name);
        similarity(b).total_cmp(&similarity(a))
    });
    names.truncate(5);
    names
}

/// Compiles patterns that match the end of a path, each with its value.
pub(crate) fn patterns<T: Copy>(
    what: &'static str,
    entries: &[(String, T)],
) -> Result<Vec<(Regex, T)>, LoraError> {
    if entries.len() > PATTERNS_LIMIT {
        return Err(LoraError::InvalidOption {
            option: what,
            found: format!("{} entries", entries.len()),
            expected: format!("at most {PATTERNS_LIMIT}"),
        });
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
pub(crate) fn first_match<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Option<T> {
    let (_, value) = patterns.iter().find(|(regex, _)| regex.is_match(path))?;
    Some(*value)
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
