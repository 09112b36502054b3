//! What becomes of a prefix where weights are merged or factors rewritten: no weight and no factor can hold one.

use super::open::Opens;
use crate::TrainError;
use lora_core::AttachReport;
use lora_core::files::{Overwrite, write_dir};
use lora_models::checkpoint::ExportReport;
use lora_models::prefix::{PREFIX_DIR, beside};
use lora_models::{ExportOptions, ModelError};
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

/// Writes a merged model. Its prefix is not lost: it goes into the directory too, as the PEFT directory
/// [`PREFIX_DIR`], whose path is returned.
///
/// # Errors
/// As [`LoraModel::export`](lora_models::LoraModel::export).
pub(crate) fn export_merged<M: Opens>(
    mut model: M,
    dir: &Path,
    options: &ExportOptions,
    overwrite: Overwrite,
) -> Result<(ExportReport, Option<PathBuf>), TrainError> {
    if model.prefix().is_none() {
        return Ok((model.export(dir, options, overwrite)?, None));
    }
    let mut written = None;
    write_dir(dir, overwrite, |fresh| {
        let base = dir.to_string_lossy();
        // Exported first: an export replaces its directory.
        let with_prefix = model.clone();
        model.take_prefix();
        written = Some(model.export(fresh, options, Overwrite::Replace)?);
        let prefix = fresh.join(PREFIX_DIR);
        with_prefix.save_prefix(prefix, Some(&base), Overwrite::Refuse)?;
        Ok::<(), TrainError>(())
    })?;
    let mut report = written.ok_or_else(|| ModelError::Export {
        path: dir.into(),
        message: "nothing was written".into(),
    })?;
    for file in &mut report.files {
        // It was written under a temporary name.
        if let Some(name) = file.file_name() {
            *file = dir.join(name);
        }
    }
    Ok((report, Some(dir.join(PREFIX_DIR))))
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
                "has a prefix, in {}, which would be lost: take a copy of the adapter without that directory",
                prefix.display()
            ),
        )),
    }
}
