//! What becomes of a prefix where weights are merged or factors rewritten: no weight and no factor can hold one.

use super::open::Opens;
use crate::TrainError;
use lora_core::AttachReport;
use lora_core::files::{Overwrite, write_dir};
use lora_models::ExportOptions;
use lora_models::prefix::{PREFIX_DIR, beside};
use std::path::{Path, PathBuf};

/// Why there is nothing to merge of a prefix alone.
pub(crate) const NOT_MERGED: &str =
    "has nothing to merge: a prefix is keys and values beside the weights; use it with --adapter";

/// Refuses to merge a prefix alone.
///
/// # Errors
/// [`TrainError::Config`].
pub(crate) fn refuse_alone<M: Opens>(
    model: &M,
    adapter: Option<&AttachReport>,
) -> Result<(), TrainError> {
    match adapter {
        Some(report) if report.is_empty() && model.prefix().is_some() => {
            Err(TrainError::config("adapter", NOT_MERGED))
        }
        _ => Ok(()),
    }
}

/// What a merge says of the prefix.
pub(crate) const PREFIX_NOTE: &str =
    "no weight can hold the prefix, the merged model needs it as its adapter";

/// Writes the prefix of a model into the directory of the merged one, as the PEFT directory [`PREFIX_DIR`]: it is not lost.
/// `base` is what the directory will be called.
///
/// # Errors
/// As [`LoraModel::save_prefix`](lora_models::LoraModel::save_prefix).
pub(crate) fn save_beside<M: Opens>(model: &M, dir: &Path, base: &Path) -> Result<(), TrainError> {
    let base = base.to_string_lossy();
    Ok(model.save_prefix(dir.join(PREFIX_DIR), Some(&base), Overwrite::Refuse)?)
}

/// Writes a merged model, and its prefix into the directory too; the path of the prefix is returned.
///
/// # Errors
/// As [`LoraModel::export`](lora_models::LoraModel::export).
pub(crate) fn export_merged<M: Opens>(
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

/// Refuses a LoRA adapter with a prefix where its factors alone would be taken.
///
/// # Errors
/// [`TrainError::Config`] that names the prefix.
pub(crate) fn refuse_beside(adapter: &Path) -> Result<(), TrainError> {
    match beside(adapter)? {
        None => Ok(()),
        Some(prefix) => Err(TrainError::config(
            "adapter",
            format!(
                "has a prefix, in {}, which has no place here: take a copy of the adapter without that directory",
                prefix.display()
            ),
        )),
    }
}
