//! Conversion of adapters between PEFT and other programs.

use crate::TrainError;
use crate::jobs::foreign::read_adapter;
pub use crate::jobs::foreign::{ForeignOptions, FormatName};
use crate::jobs::inputs::Inputs;
use crate::jobs::sources::model_directory;
use clap::Args;
use lora_core::file::PeftOptions;
use lora_core::file::StoredAdapter;
use lora_core::files::{Overwrite, check_dir, check_file};
use lora_models::ModelConfig;
use lora_models::formats::loralib;
use lora_models::formats::{AdapterFormat, Rename, gguf, mlx};
use std::path::{Path, PathBuf};

/// Options of `lora convert`.
#[derive(Args, Clone, Debug)]
pub struct ConvertOptions {
    /// Adapter: a directory of PEFT or mlx-lm, or a loralib file.
    #[arg(value_name = "PATH")]
    pub input: PathBuf,
    /// Format of the adapter [default: detected from its files].
    #[arg(long, value_name = "FORMAT")]
    pub from: Option<FormatName>,
    /// Format to write.
    #[arg(long, value_name = "FORMAT", default_value = "peft")]
    pub to: FormatName,
    /// Directory or file to write.
    #[arg(long, value_name = "PATH")]
    pub output: PathBuf,
    /// Values that the other program's file lacks.
    #[command(flatten)]
    pub foreign: ForeignOptions,
    /// PEFT's task, such as `CAUSAL_LM` or `SEQ_CLS`.
    #[arg(long, value_name = "TYPE")]
    pub task_type: Option<String>,
    /// Name or path of the base model, for PEFT.
    #[arg(long, value_name = "NAME")]
    pub base_model: Option<String>,
    /// Base model whose configuration gives the names of the tensors, for gguf; its weights are not read [default: the base model
    /// that the adapter names].
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Declare the adapted layers as `Conv1D`, as in GPT-2 (PEFT's `fan_in_fan_out`).
    #[arg(long)]
    pub fan_in_fan_out: bool,
    /// Replace the output if it exists.
    #[arg(long)]
    pub overwrite: bool,
}

/// Converts an adapter, and returns a summary of the written one.
///
/// # Errors
/// If an option or file is invalid, the other format lacks a part of the adapter, or the output exists.
pub fn convert(options: &ConvertOptions) -> Result<String, TrainError> {
    let from = format(options)?;
    options.foreign.check(&[from])?;
    if options.to != FormatName::Peft {
        let given = [
            ("task_type", options.task_type.is_some()),
            ("fan_in_fan_out", options.fan_in_fan_out),
            ("base_model", options.base_model.is_some()),
        ];
        if let Some((option, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            let message = "belongs to `--to peft`: the other formats do not hold it";
            return Err(TrainError::config(option, message));
        }
    }
    if options.model.is_some() && options.to != FormatName::Gguf {
        let message = "belongs to `--to gguf`: the other formats need no base";
        return Err(TrainError::config("model", message));
    }
    let adapter = read(options, from)?;
    let rename: &Rename = &options.foreign.rename;
    let mut names = rename.iter();
    let unused = names.find(|(_, to)| {
        let mut all = adapter.modules.keys().chain(adapter.saved.keys());
        !all.any(|name| name.starts_with(to.as_str()))
    });
    if let Some((from, to)) = unused {
        let message = format!("{from}={to} matches no name of the adapter");
        return Err(TrainError::config("rename", message));
    }
    let overwrite = Overwrite::from(options.overwrite);
    let output = &options.output;
    let read = [Some(options.input.as_path()), options.model.as_deref()];
    Inputs::of(read.into_iter().flatten()).refuse("output", output)?;
    match options.to {
        FormatName::Loralib => check_file(output, overwrite)?,
        FormatName::Peft | FormatName::Mlx | FormatName::Gguf => check_dir(output, overwrite)?,
    }
    match options.to {
        FormatName::Peft => adapter.save(output, overwrite)?,
        FormatName::Loralib => loralib::write(&adapter, output, rename, overwrite)?,
        FormatName::Mlx => mlx::write(&adapter, output, rename, overwrite)?,
        FormatName::Gguf => {
            let (base, from) = base(options, &adapter)?;
            gguf::write(&adapter, &base, &from, output, overwrite)?;
        }
    }
    Ok(format!(
        "converted {} modules, {} parameters and {} of `modules_to_save` to {}",
        adapter.modules.len(),
        adapter.parameters(),
        adapter.saved_parameters(),
        output.display()
    ))
}

/// Returns the configuration of the base, and the name or path of the base for other programs.
fn base(
    options: &ConvertOptions,
    adapter: &StoredAdapter,
) -> Result<(ModelConfig, String), TrainError> {
    let named = adapter.options.base_model.as_deref();
    let model = options.model.as_deref().or(named.map(Path::new));
    let model = model.ok_or_else(|| {
        let message =
            "is missing: names and heads in a GGUF file follow from the base; give its directory";
        TrainError::config("model", message)
    })?;
    let dir = model_directory(model)?;
    let config = ModelConfig::from_dir(dir.as_path())?;
    // A relative path would be taken from the folder of the Modelfile.
    let from = match std::path::absolute(&dir) {
        Ok(path) if model.is_dir() => path.display().to_string(),
        _ => model.display().to_string(),
    };
    Ok((config, from))
}

/// Returns the format of the input: the given one, or else what its files look like.
fn format(options: &ConvertOptions) -> Result<FormatName, TrainError> {
    let detected = || AdapterFormat::detect(&options.input).map(FormatName::from);
    options.from.or_else(detected).ok_or_else(|| {
        let message = format!(
            "the format of {} cannot be detected; give it: peft, loralib or mlx",
            options.input.display()
        );
        TrainError::config("from", message)
    })
}

fn read(options: &ConvertOptions, from: FormatName) -> Result<StoredAdapter, TrainError> {
    let peft = PeftOptions {
        task_type: options.task_type.clone(),
        base_model: options.base_model.clone(),
        fan_in_fan_out: options.fan_in_fan_out,
        companions: Vec::new(),
    };
    read_adapter(&options.input, from, &options.foreign, peft)
}
