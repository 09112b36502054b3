//! Adapters of other programs, to and from PEFT.

use crate::TrainError;
use crate::jobs::prefix::refuse_beside;
use clap::{Args, ValueEnum};
use lora_core::file::PeftOptions;
use lora_core::file::StoredAdapter;
use lora_core::files::Overwrite;
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
    /// The adapter: a directory, or loralib's file.
    #[arg(value_name = "PATH")]
    pub input: PathBuf,
    /// Its format [default: as its files are].
    #[arg(long, value_name = "FORMAT")]
    pub from: Option<FormatName>,
    /// Format to write.
    #[arg(long, value_name = "FORMAT", default_value = "peft")]
    pub to: FormatName,
    /// Directory, or file, to write.
    #[arg(long, value_name = "PATH")]
    pub output: PathBuf,
    /// Facts that the file of the other program lacks.
    #[command(flatten)]
    pub unsaid: UnsaidOptions,
    /// PEFT's task, such as `CAUSAL_LM` or `SEQ_CLS`.
    #[arg(long, value_name = "TYPE")]
    pub task_type: Option<String>,
    /// Name or path of the base model, for PEFT.
    #[arg(long, value_name = "NAME")]
    pub base_model: Option<String>,
    /// The adapted layers are `Conv1D` in Python: GPT-2's.
    #[arg(long)]
    pub fan_in_fan_out: bool,
    /// Replace the output if it is there.
    #[arg(long)]
    pub overwrite: bool,
}

/// Facts about an adapter that the file of another program lacks.
#[derive(Args, Clone, Debug, Default)]
pub struct UnsaidOptions {
    /// Alpha that a loralib adapter was trained with: its file does not say.
    #[arg(long, value_name = "X")]
    pub alpha: Option<f64>,
    /// The parts of q, k and v that loralib's `MergedLinear` layers have enabled, such as `q,v`.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub slices: Vec<String>,
    /// Another beginning of names, such as `model.=transformer.` for mlx-lm's GPT-2: left as there, right as in the model. Of a PEFT file it is the part behind `base_model.model.`, or all of it where that is missing.
    #[arg(long, value_name = "FROM=TO", value_parser = parse_rename)]
    pub rename: Vec<(String, String)>,
}

impl UnsaidOptions {
    /// Refuses the options for loralib's files if there is none.
    pub(super) fn check(&self, formats: &[FormatName]) -> Result<(), TrainError> {
        let option = match (self.alpha, self.slices.is_empty()) {
            (Some(_), _) => "alpha",
            (None, false) => "slices",
            (None, true) => return Ok(()),
        };
        if formats.contains(&FormatName::Loralib) {
            return Ok(());
        }
        let message = "is for loralib's files: the others say it themselves";
        Err(TrainError::config(option, message))
    }
}

fn parse_rename(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=');
    let (from, to) = pair.ok_or("expected FROM=TO")?;
    Ok((from.into(), to.into()))
}

/// Converts, and returns a line on what was written.
///
/// # Errors
/// On bad options or files, what the other format has no place for, or an output that is there already.
pub fn convert(options: &ConvertOptions) -> Result<String, TrainError> {
    let adapter = read(options)?;
    let rename: &Rename = &options.unsaid.rename;
    let mut names = rename.iter();
    let unused = names.find(|(_, to)| {
        let mut all = adapter.modules.keys().chain(adapter.saved.keys());
        !all.any(|name| name.starts_with(to.as_str()))
    });
    if let Some((from, to)) = unused {
        let message = format!("{from}={to} fits no name of the adapter");
        return Err(TrainError::config("rename", message));
    }
    let overwrite = Overwrite::from(options.overwrite);
    let output = &options.output;
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

fn read(options: &ConvertOptions) -> Result<StoredAdapter, TrainError> {
    let input = &options.input;
    let from = options
        .from
        .or_else(|| AdapterFormat::detect(input).map(FormatName::from));
    let from = from.ok_or_else(|| {
        let message = format!(
            "{} is no adapter that is known by its files; name its format, peft, loralib or mlx",
            input.display()
        );
        TrainError::config("from", message)
    })?;
    options.unsaid.check(&[from])?;
    let peft = PeftOptions {
        task_type: options.task_type.clone(),
        base_model: options.base_model.clone(),
        fan_in_fan_out: options.fan_in_fan_out,
        companions: Vec::new(),
    };
    read_adapter(input, from, &options.unsaid, peft)
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
            let alpha = unsaid.alpha.ok_or_else(|| {
                TrainError::config(
                    "alpha",
                    "is missing: loralib's file does not say it, give the one of the training",
                )
            })?;
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

/// Parts of a projection that holds q, k and v.
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
