//! Modules that a file calls otherwise than the model does.

use super::StoredAdapter;
use crate::config::TargetModules;
use crate::error::LoraError;
use crate::fingerprint::BASE_KEY;
use crate::peft::PREFIX;
use std::collections::BTreeMap;
use std::path::Path;

/// A name with another beginning, where one fits: the first that does counts.
pub(super) fn renamed(name: &str, rename: &[(String, String)]) -> Option<String> {
    rename.iter().find_map(|(from, to)| {
        let rest = name.strip_prefix(from.as_str())?;
        Some(format!("{to}{rest}"))
    })
}

/// What to say of names without PEFT's prefix.
pub(super) fn missing_prefix(name: &str, count: usize) -> String {
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

impl StoredAdapter {
    /// With other beginnings of its names. Targets become the modules there are, and what is noted of the base is
    /// left out where a name changes: it was of a model with the old ones.
    pub(super) fn renamed(
        mut self,
        path: &Path,
        rename: &[(String, String)],
    ) -> Result<Self, LoraError> {
        let name = |old: &str| renamed(old, rename).unwrap_or_else(|| old.to_string());
        let mut names = self.modules.keys().chain(self.saved.keys());
        if names.all(|old| name(old) == *old) {
            return Ok(self);
        }
        let slices = self.slices()?;
        self.metadata.remove(BASE_KEY);
        self.modules = keys_renamed(path, self.modules, name)?;
        self.saved = keys_renamed(path, self.saved, name)?;
        self.note_slices(slices.into_iter().map(|(old, slices)| (name(&old), slices)));
        let config = &mut self.config;
        config.targets = TargetModules::names(self.modules.keys().cloned());
        config.exclude = None;
        config.layers = None;
        config.layers_pattern.clear();
        let to_save = config.modules_to_save.iter_mut();
        to_save.for_each(|module| *module = name(module));
        Ok(self)
    }
}

fn keys_renamed<T>(
    path: &Path,
    map: BTreeMap<String, T>,
    name: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, T>, LoraError> {
    let mut renamed = BTreeMap::new();
    for (old, value) in map {
        let new = name(&old);
        if renamed.insert(new.clone(), value).is_some() {
            return Err(LoraError::Malformed {
                path: path.into(),
                message: format!("two of its names become `{new}`"),
            });
        }
    }
    Ok(renamed)
}
