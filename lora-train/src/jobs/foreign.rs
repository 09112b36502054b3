//! Adapters in the files of other programs: read as PEFT's, with the values that these files lack.

use super::beside::refuse_beside;
use crate::TrainError;
use clap::{Args, ValueEnum};
use lora_core::file::{AdapterDir, PeftOptions, StoredAdapter};
use lora_core::files::Overwrite;
use lora_core::{FusedLayout, Slices};
use lora_models::formats::loralib::{self, LoralibOptions};
use lora_models::formats::{AdapterFormat, mlx};
use std::path::Path;
use tempfile::TempDir;

/// A format, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// A directory of Python's PEFT.
    Peft,
    /// A state dict of loralib (microsoft/LoRA): pickled (.bin, .pt, .pth), or .safetensors.
    Loralib,
    /// A directory of mlx-lm.
    Mlx,
    /// A directory with a GGUF file for llama.cpp and a Modelfile for Ollama; it is written, and not read.
    Gguf,
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

/// Options for the file of another program: values of the adapter that it lacks, and other names.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct ForeignOptions {
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

impl ForeignOptions {
    /// Refuses the options for loralib files if no file has that format, or several have.
    pub(crate) fn check(&self, formats: &[FormatName]) -> Result<(), TrainError> {
        let files = formats.iter().filter(|it| **it == FormatName::Loralib);
        if files.count() > 1 {
            let message = "belongs to one loralib file, and several are given; convert them to PEFT's format first, each with its own \
                           value (`lora convert FILE --to peft --alpha X --output DIR`)";
            return Err(TrainError::config("alpha", message));
        }
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

/// Reads an adapter of any format.
pub(crate) fn read_adapter(
    input: &Path,
    from: FormatName,
    foreign: &ForeignOptions,
    mut peft: PeftOptions,
) -> Result<StoredAdapter, TrainError> {
    let rename = &foreign.rename;
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
        FormatName::Gguf => {
            let message = "cannot be gguf, which is written only; expected peft, loralib or mlx";
            Err(TrainError::config("from", message))
        }
        FormatName::Loralib => {
            let message =
                "is missing: a loralib file does not contain it; give the value of the training";
            let missing = || TrainError::config("alpha", message);
            let alpha = foreign.alpha.ok_or_else(missing)?;
            let options = LoralibOptions {
                alpha,
                slices: slices(&foreign.slices)?,
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

/// Adapter of another program in a directory of PEFT, which is removed with this value.
pub(super) struct Converted {
    /// The directory.
    pub dir: AdapterDir,
    /// Keeps it.
    pub kept: TempDir,
}

/// Reads a file of loralib in place of a directory of PEFT; `None` for anything else.
///
/// # Errors
/// If the file is malformed, or a value that it lacks is not given.
pub(super) fn opened(
    path: &Path,
    foreign: &ForeignOptions,
) -> Result<Option<Converted>, TrainError> {
    if !path.is_file() || AdapterFormat::detect(path) != Some(AdapterFormat::Loralib) {
        return Ok(None);
    }
    let peft = PeftOptions::default();
    let adapter = read_adapter(path, FormatName::Loralib, foreign, peft)?;
    let kept = tempfile::tempdir().map_err(TrainError::io("a temporary directory"))?;
    let to = kept.path().join("adapter");
    adapter.save(&to, Overwrite::Refuse)?;
    let dir = AdapterDir::open(&to)?;
    Ok(Some(Converted { dir, kept }))
}
