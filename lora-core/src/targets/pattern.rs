//! Names, ends of names and regular expressions on dotted paths.

use crate::LoraError;
use crate::modules::Matrix;
use regex::Regex;

/// Whether `path` is `name` or ends in `.name`.
pub(crate) fn ends_in(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

pub(super) fn compile(
    what: &'static str,
    pattern: &str,
    regex: String,
) -> Result<Regex, LoraError> {
    Regex::new(&regex).map_err(|error| LoraError::InvalidPattern {
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

/// A regular expression that must match all of a path, as Python's `re.fullmatch`.
pub(super) fn full_match(what: &'static str, pattern: &str) -> Result<Regex, LoraError> {
    compile(what, pattern, format!("^(?:{pattern})$"))
}

/// The names closest to an entry: what the user may have meant.
pub(crate) fn nearest(entry: &str, matrices: &[Matrix]) -> Vec<String> {
    closest(entry, matrices.iter().map(|m| m.module.as_str()))
}

/// The paths closest to an entry, or their last components where the entry is a single one.
pub(super) fn closest<'a>(entry: &str, paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let shown = |path: &'a str| match entry.contains('.') {
        true => path,
        false => path.rsplit('.').next().unwrap_or(path),
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

pub(crate) fn patterns<T: Copy>(
    what: &'static str,
    entries: &[(String, T)],
) -> Result<Vec<(Regex, T)>, LoraError> {
    entries
        .iter()
        .map(|(pattern, value)| {
            let regex = compile(what, pattern, format!(r"^(?:.*\.)?(?:{pattern})$"))?;
            Ok((regex, *value))
        })
        .collect()
}

pub(crate) fn first_match<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Option<T> {
    let (_, value) = patterns.iter().find(|(regex, _)| regex.is_match(path))?;
    Some(*value)
}
