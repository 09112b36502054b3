//! Conversion of adapters between PEFT and other programs.

use crate::TrainError;
use crate::jobs::foreign::read_adapter;
pub use crate::jobs::foreign::{ForeignOptions, FormatName};
use crate::jobs::inputs::Inputs;
use clap::Args;
use lora_core::file::PeftOptions;
use lora_core::file::StoredAdapter;
use lora_core::files::{Overwrite, check_dir, check_file};
use lora_models::formats::loralib;
use lora_models::formats::{AdapterFormat, Rename, mlx};
use std::path::PathBuf;

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
    Inputs::of([options.input.as_path()]).refuse("output", output)?;
    match options.to {
        FormatName::Loralib => check_file(output, overwrite)?,
        FormatName::Peft | FormatName::Mlx => check_dir(output, overwrite)?,
    }
    match options.to {
        FormatName::Peft => adapter.save(output, overwrite)?,
        FormatName::Loralib => loralib::write(&adapter, output, rename, overwrite)?,
        FormatName::Mlx => mlx::write(&adapter, output, rename, overwrite)?,
    }
    Ok(format!(
        "converted {} modules, {} parameters and {} of `modules_to_save` to {}",
        adapter.modules.len(),
        adapter.parameters(),
        adapter.saved_parameters(),
        output.display()
    ))
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
