//! Several adapters in one directory tree, as PEFT's `save_pretrained` writes them: the adapter named `default` at the top,
//! and every other in a directory of its name.

use super::adapters::NamedAdapters;
use super::name::check_name;
use crate::error::LoraError;
use crate::file::CONFIG_FILE;
use crate::files::{Overwrite, write_dir};
use burn::module::Module;
use std::path::{Path, PathBuf};

/// Name of the adapter at the top of a tree.
pub const DEFAULT: &str = "default";

/// Lists the adapters in a tree with their directories: the one at the top first, the others by name. Other files are
/// ignored.
///
/// # Errors
/// [`LoraError::Io`], [`LoraError::AdapterName`]; [`LoraError::Malformed`] if there is none, or two are named `default`.
pub fn adapters_in(dir: &Path) -> Result<Vec<(String, PathBuf)>, LoraError> {
    let malformed = |message: &str| LoraError::malformed(dir, message);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(LoraError::io(dir))? {
        let path = entry.map_err(LoraError::io(dir))?.path();
        if !path.join(CONFIG_FILE).is_file() {
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        let name = name.to_str().ok_or_else(|| LoraError::AdapterName {
            name: name.to_string_lossy().into(),
            message: "is not Unicode".into(),
        })?;
        check_name(name)?;
        found.push((name.to_string(), path));
    }
    found.sort();
    if dir.join(CONFIG_FILE).is_file() {
        if found.iter().any(|(name, _)| name == DEFAULT) {
            return Err(malformed(
                "has two adapters named `default`: one at the top, and one in a directory of this name",
            ));
        }
        found.insert(0, (DEFAULT.into(), dir.into()));
    }
    if found.is_empty() {
        return Err(malformed(
            "has no adapter: no `adapter_config.json` at the top or in a directory inside",
        ));
    }
    Ok(found)
}

impl<M: Module> NamedAdapters<M> {
    /// Adds all adapters of a tree, and returns their names.
    ///
    /// # Errors
    /// As [`adapters_in`] and [`add`](Self::add); then no adapter is added.
    pub fn add_tree(&mut self, dir: &Path) -> Result<Vec<String>, LoraError> {
        let found = adapters_in(dir)?;
        let before = self.named().len();
        for (name, dir) in &found {
            if let Err(error) = self.add(name, dir).map(|_| ()) {
                self.truncate(before);
                return Err(error);
            }
        }
        Ok(found.into_iter().map(|(name, _)| name).collect())
    }

    /// Writes all adapters as a tree, atomically.
    ///
    /// # Errors
    /// [`LoraError::AlreadyExists`] if the directory exists and may not be replaced, [`LoraError::Malformed`] if there is
    /// no adapter, or [`LoraError::Io`].
    pub fn save_tree(&self, dir: &Path, overwrite: Overwrite) -> Result<(), LoraError> {
        if self.named().is_empty() {
            let message = "cannot be written: there are no adapters";
            return Err(LoraError::malformed(dir, message));
        }
        write_dir(dir, overwrite, |dir| {
            for name in self.names() {
                let stored = self.extract(name)?;
                let own = match name {
                    DEFAULT => dir.to_path_buf(),
                    name => dir.join(name),
                };
                std::fs::create_dir_all(&own).map_err(LoraError::io(&own))?;
                stored.save_into(&own)?;
            }
            Ok(())
        })
    }
}
