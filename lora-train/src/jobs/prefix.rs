//! Prefixes in merges and conversions: a prefix is not part of weights or factors.

use crate::TrainError;
use lora_core::AttachReport;
use lora_core::files::{Overwrite, write_dir};
use lora_models::prefix::{PREFIX_DIR, beside};
use lora_models::{ExportOptions, PrefixModel, Pretrained};
use std::path::{Path, PathBuf};

/// Reason that a prefix alone cannot be merged.
pub(crate) const NOT_MERGED: &str =
    "has nothing to merge: a prefix is keys and values beside the weights; use it with --adapter";

/// Refuses to merge a prefix alone.
///
/// # Errors
/// [`TrainError::Config`].
pub(crate) fn refuse_alone<M: PrefixModel>(
    model: &M,
    adapter: Option<&AttachReport>,
) -> Result<(), TrainError> {
    if model.prefix().is_some() && adapter.is_some_and(AttachReport::is_empty) {
        return Err(TrainError::config("adapter", NOT_MERGED));
    }
    Ok(())
}

/// Note on the prefix of a merged model.
pub(crate) const PREFIX_NOTE: &str =
    "no weight can hold the prefix: load it beside the merged model, as its adapter";

/// Writes the prefix of a model into the directory of the merged model, as the PEFT directory [`PREFIX_DIR`]. `base` is the
/// final path of the directory.
///
/// # Errors
/// As [`PrefixModel::save_prefix`].
pub(crate) fn save_beside<M: PrefixModel>(
    model: &M,
    dir: &Path,
    base: &Path,
) -> Result<(), TrainError> {
    let base = base.to_string_lossy();
    Ok(model.save_prefix(dir.join(PREFIX_DIR), Some(&base), Overwrite::Refuse)?)
}

/// Writes a merged model with its prefix, and returns the prefix's path.
///
/// # Errors
/// As [`Pretrained::export`].
pub(crate) fn export_merged<M: Pretrained>(
    mut model: M,
    dir: &Path,
    options: &ExportOptions,
    overwrite: Overwrite,
) -> Result<Option<PathBuf>, TrainError> {
    if model.prefix().is_none() {
        model.export(dir, options, overwrite)?;
        return Ok(None);
    }
    let with_prefix = model.clone();
    model.take_prefix();
    write_dir(dir, overwrite, |fresh| {
        model.export(fresh, options, Overwrite::Refuse)?;
        save_beside(&with_prefix, fresh, dir)
    })?;
    Ok(Some(dir.join(PREFIX_DIR)))
}

/// Refuses a LoRA adapter with a prefix, for work on its factors alone.
///
/// # Errors
/// [`TrainError::Config`] that names the prefix.
pub(crate) fn refuse_beside(adapter: &Path) -> Result<(), TrainError> {
    let Some(prefix) = beside(adapter)? else {
        return Ok(());
    };
    let message = format!(
        "has a prefix in {}, which is not supported here: use a copy of the adapter without that directory",
        prefix.path().display()
    );
    Err(TrainError::config("adapter", message))
}
