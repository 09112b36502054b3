//! Conversion of adapters between PEFT and other programs.

use crate::TrainError;
use crate::jobs::beside::refuse_beside;
use crate::jobs::inputs::Inputs;
use clap::{Args, ValueEnum};
use lora_core::file::PeftOptions;
use lora_core::file::StoredAdapter;
use lora_core::files::{Overwrite, check_dir, check_file};
use lora_core::{FusedLayout, Slices};
use lora_models::formats::loralib::{self, LoralibOptions};
use lora_models::formats::{AdapterFormat, Rename, mlx};
use std::path::{Path, PathBuf};

/// A format, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// A directory of Python's PEFT.
    Peft,
    /// A state dict of loralib (microsoft/LoRA): pickled (.bin, .pt, .pth), or .safetensors.
    Loralib,
    /// A directory of mlx-lm.
    Mlx,
}

impl From<AdapterFormat> for FormatName {
    fn from(format: AdapterFormat) -> Self {
        match format {
            AdapterFormat::Peft => Self::Peft,
            AdapterFormat::Loralib => Self::Loralib,
            AdapterFormat::Mlx => Self::Mlx,
        }
    }
}

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
    pub unsaid: UnsaidOptions,
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

/// Values of an adapter that the file of another program lacks.
#[derive(Args, Clone, Debug, Default)]
pub struct UnsaidOptions {
    /// Alpha of a loralib adapter, which its file does not contain.
    #[arg(long, value_name = "X")]
    pub alpha: Option<f64>,
    /// Slices of q, k and v that loralib's `MergedLinear` layers adapt, such as `q,v`.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub slices: Vec<String>,
    /// Rename the start of module names, such as `model.=transformer.` for mlx-lm's GPT-2: FROM in the other program's file, TO in the model. In a PEFT file, FROM follows `base_model.model.`, or starts the name if that prefix is missing.
    #[arg(long, value_name = "FROM=TO", value_parser = parse_rename)]
    pub rename: Vec<(String, String)>,
}

impl UnsaidOptions {
    /// Refuses the options for loralib files if no file has that format.
    pub(super) fn check(&self, formats: &[FormatName]) -> Result<(), TrainError> {
        let option = match (self.alpha, self.slices.is_empty()) {
            (Some(_), _) => "alpha",
            (None, false) => "slices",
            (None, true) => return Ok(()),
        };
        if formats.contains(&FormatName::Loralib) {
            return Ok(());
        }
        let message = "applies to loralib files only: the other formats contain the value";
        Err(TrainError::config(option, message))
    }
}

fn parse_rename(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=');
    let (from, to) = pair.ok_or("expected FROM=TO")?;
    Ok((from.into(), to.into()))
}

/// Converts an adapter, and returns a summary of the written one.
///
/// # Errors
/// If an option or file is invalid, the other format lacks a part of the adapter, or the output exists.
pub fn convert(options: &ConvertOptions) -> Result<String, TrainError> {
    let from = format(options)?;
    options.unsaid.check(&[from])?;
    let adapter = read(options, from)?;
    let rename: &Rename = &options.unsaid.rename;
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
    read_adapter(&options.input, from, &options.unsaid, peft)
}

/// Reads an adapter of any format.
pub(super) fn read_adapter(
    input: &Path,
    from: FormatName,
    unsaid: &UnsaidOptions,
    mut peft: PeftOptions,
) -> Result<StoredAdapter, TrainError> {
    let rename = &unsaid.rename;
    match from {
        FormatName::Peft => {
            refuse_beside(input)?;
            let mut adapter = StoredAdapter::read_renamed(input, rename)?;
            let own = std::mem::take(&mut adapter.options);
            peft.task_type = peft.task_type.or(own.task_type);
            peft.base_model = peft.base_model.or(own.base_model);
            peft.fan_in_fan_out |= own.fan_in_fan_out;
            peft.companions = own.companions;
            adapter.options = peft;
            Ok(adapter)
        }
        FormatName::Mlx => Ok(mlx::read(input, rename, peft)?),
        FormatName::Loralib => {
            let message =
                "is missing: a loralib file does not contain it; give the value of the training";
            let missing = || TrainError::config("alpha", message);
            let alpha = unsaid.alpha.ok_or_else(missing)?;
            let options = LoralibOptions {
                alpha,
                slices: slices(&unsaid.slices)?,
                rename: rename.clone(),
                peft,
            };
            Ok(loralib::read(input, &options)?)
        }
    }
}

/// Parses the adapted slices of a fused query, key and value projection.
fn slices(names: &[String]) -> Result<Option<Slices>, TrainError> {
    const PARTS: [&str; 3] = ["q", "k", "v"];
    if names.is_empty() {
        return Ok(None);
    }
    let position = |name: &String| {
        let found = PARTS.iter().position(|part| part == &name.trim());
        found.ok_or_else(|| {
            TrainError::config("slices", format!("has `{name}`, expected q, k or v"))
        })
    };
    let mut adapted = names.iter().map(position).collect::<Result<Vec<_>, _>>()?;
    adapted.sort_unstable();
    adapted.dedup();
    Ok(Some(Slices {
        parts: PARTS.len(),
        adapted,
        layout: FusedLayout::PartByPart,
    }))
}
