//! Virtual tokens and adapter layers in merges and conversions: they are not part of weights or factors.

use crate::TrainError;
use lora_core::AttachReport;
use lora_core::file::CONFIG_FILE;
use lora_core::files::{Overwrite, write_dir};
use lora_models::adapter_layers::ADAPTER_LAYERS_DIR;
use lora_models::added::{has_own_part, save_added};
use lora_models::prefix::beside;
use lora_models::{AddedModel, ExportOptions, Pretrained};
use std::path::{Path, PathBuf};

/// Reason that virtual tokens or adapter layers alone cannot be merged.
pub(crate) const NOT_MERGED: &str = "has nothing to merge: virtual tokens and adapter layers are computed beside the weights, and no \
                                     weight can hold them; use it with --adapter";

/// Refuses to merge virtual tokens or adapter layers alone. `option` asks for the merge.
///
/// # Errors
/// [`TrainError::Config`] that names the option.
pub(crate) fn refuse_alone<M: AddedModel>(
    model: &M,
    adapter: &AttachReport,
    option: &str,
) -> Result<(), TrainError> {
    if !model.added().is_empty() && !has_own_part(model, adapter) {
        return Err(TrainError::config(option, NOT_MERGED));
    }
    Ok(())
}

/// Note on what is beside a merged model.
pub(crate) const BESIDE_NOTE: &str = "no weight can hold the virtual tokens or adapter layers: load them beside the merged model, as its adapter";

/// Writes the virtual tokens and adapter layers of a model into the directory of the merged model. `base` is the final path of the
/// directory. Returns their final paths.
///
/// # Errors
/// As [`save_added`].
pub(crate) fn save_beside<M: AddedModel>(
    model: &M,
    dir: &Path,
    base: &Path,
) -> Result<Vec<PathBuf>, TrainError> {
    save_added(model, dir, Some(&base.to_string_lossy()))?;
    let added = model.added();
    let prefix = added.prefix.iter().map(|prefix| prefix.kind().name());
    let adapters = added.adapters.iter().map(|_| ADAPTER_LAYERS_DIR);
    Ok(prefix.chain(adapters).map(|name| base.join(name)).collect())
}

/// Writes a merged model with what is beside it, and returns the paths of the latter.
///
/// # Errors
/// As [`Pretrained::export`].
pub(crate) fn export_merged<M: Pretrained>(
    mut model: M,
    dir: &Path,
    options: &ExportOptions,
    overwrite: Overwrite,
) -> Result<Vec<PathBuf>, TrainError> {
    if model.added().is_empty() {
        model.export(dir, options, overwrite)?;
        return Ok(Vec::new());
    }
    let whole = model.clone();
    model.take_added();
    let mut beside = Vec::new();
    write_dir(dir, overwrite, |fresh| {
        model.export(fresh, options, Overwrite::Refuse)?;
        beside = save_beside(&whole, fresh, dir)?;
        Ok::<(), TrainError>(())
    })?;
    Ok(beside)
}

/// Refuses a LoRA adapter with others beside it, for work on its factors alone.
///
/// # Errors
/// [`TrainError::Config`] that names the directory.
pub(crate) fn refuse_beside(adapter: &Path) -> Result<(), TrainError> {
    let layers = adapter.join(ADAPTER_LAYERS_DIR);
    let found = match beside(adapter)? {
        Some(prefix) => prefix.path().to_path_buf(),
        None if layers.join(CONFIG_FILE).exists() => layers,
        None => return Ok(()),
    };
    let message = format!(
        "has another adapter in {}, which is not supported here: use a copy of the adapter without that directory",
        found.display()
    );
    Err(TrainError::config("adapter", message))
}
