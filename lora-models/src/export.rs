//! Model directories for transformers.

use crate::ModelError;
use crate::checkpoint::{ExportDType, ExportReport, SafetensorsExport};
use crate::tokenizer::TokenizerFiles;
use crate::weights::Parameters;
use lora_core::file::{TOKENIZER_FILES, TOKENIZER_LIMIT};
use lora_core::files::{Overwrite, create_folder_of, read_companion, write_dir, write_file};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Name of the file with the configuration.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// Name of the file with the settings for text generation.
pub(crate) const GENERATION_FILE: &str = "generation_config.json";

/// Options for exporting a model.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// Element type of the weights. Default: f32.
    pub dtype: ExportDType,
    /// Directory of the base model, whose tokenizer files and `generation_config.json` are copied. Default: none.
    pub base_dir: Option<PathBuf>,
    /// Names and contents of the tokenizer's files, if they are not those of the base model.
    pub tokenizer_files: Option<TokenizerFiles>,
}

/// Writes `model.safetensors` (in shards above 5 GB), `config.json`, and the files of the base model
/// beside them. The write is atomic.
pub(crate) fn write_model(
    dir: &Path,
    parameters: &Parameters<'_>,
    mut config: Map<String, Value>,
    options: &ExportOptions,
    overwrite: Overwrite,
) -> Result<ExportReport, ModelError> {
    // The name of the base is a path of its author, and transformers 5 writes `dtype` for `torch_dtype`.
    config.shift_remove("_name_or_path");
    config.shift_remove("torch_dtype");
    config.insert("dtype".into(), json!(options.dtype.torch_name()));
    let text = format!("{:#}\n", Value::Object(config));
    // Before gigabytes are written.
    let companions = companions(options)?;
    let mut report = None;
    write_dir(dir, overwrite, |fresh| {
        let written = SafetensorsExport::new(fresh)
            .with_dtype(options.dtype)
            .write(&parameters.plan(), |name| parameters.values(name))?;
        write_file(&fresh.join(CONFIG_FILE), Overwrite::Refuse, |writer| {
            writer.write_all(text.as_bytes())
        })?;
        for (name, bytes) in &companions {
            create_folder_of(&fresh.join(name))?;
            write_file(&fresh.join(name), Overwrite::Refuse, |writer| {
                writer.write_all(bytes)
            })?;
        }
        report = Some(written);
        Ok::<(), ModelError>(())
    })?;
    let mut report = report.ok_or_else(|| ModelError::export(dir, "nothing was written"))?;
    for file in &mut report.files {
        // The directory was written under a temporary name.
        if let Some(name) = file.file_name() {
            *file = dir.join(name);
        }
    }
    Ok(report)
}

/// Reads the files of the base model that go beside the weights: its tokenizer, unless the options bring another, and its
/// generation defaults.
pub(crate) fn companions(options: &ExportOptions) -> Result<TokenizerFiles, ModelError> {
    let mut files = options.tokenizer_files.clone().unwrap_or_default();
    let Some(base) = options.base_dir.as_deref() else {
        return Ok(files);
    };
    let tokenizer = TOKENIZER_FILES.iter();
    let tokenizer = tokenizer.filter(|_| options.tokenizer_files.is_none());
    for name in tokenizer.chain(&[GENERATION_FILE]) {
        if let Some(bytes) = read_companion(base, name, TOKENIZER_LIMIT)? {
            files.push((name.to_string(), bytes));
        }
    }
    Ok(files)
}
