//! Files beside a trained adapter: its card, as PEFT and TRL write one, and its tokenizer.

use super::plan::TrainPlan;
use super::session::Base;
use crate::device::BURN_VERSION;
use crate::progress::Screen;
use crate::task::TaskName;
use lora_core::AttachReport;
use lora_core::file::TOKENIZER_LIMIT;
use lora_core::files::read_companion;
use lora_models::hub::name_of_snapshot;
use lora_models::tokenizer::TokenizerFiles;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// Name of the card.
const CARD: &str = "README.md";

/// Facts about a run that its card tells.
pub(super) struct Card<'a> {
    pub plan: &'a TrainPlan,
    pub task: TaskName,
    pub report: &'a AttachReport,
    /// Names and descriptions of virtual tokens and adapter layers.
    pub added: Vec<(&'static str, String)>,
    /// True if the directory is one of the library `adapters`.
    pub of_adapters: bool,
    /// Limits of Python's PEFT with this adapter.
    pub notes: Vec<String>,
    pub steps: usize,
    pub before: &'a BTreeMap<String, f64>,
    pub after: &'a BTreeMap<String, f64>,
}

/// Returns the files beside an adapter. A tokenizer's file that cannot be read any more is left out with a line: the trained
/// weights must not depend on it.
pub(super) fn files_beside(base: &Base, card: &Card<'_>, screen: &Screen) -> TokenizerFiles {
    let mut files = base.tokenizer_files.clone().unwrap_or_else(|| {
        let found = base.tokenizer.files().iter().filter_map(|path| {
            let name = path.strip_prefix(&base.dir).ok()?.to_str()?.to_string();
            match read_companion(&base.dir, &name, TOKENIZER_LIMIT) {
                Ok(bytes) => Some((name, bytes?)),
                Err(error) => {
                    screen.line(&format!("note      the adapter lacks {name}: {error}"));
                    None
                }
            }
        });
        found.collect()
    });
    files.push((CARD.into(), card.text(&base.dir).into_bytes()));
    files
}

impl Card<'_> {
    /// Returns the card, Markdown below a header in YAML. `base` is the directory of the base model.
    fn text(&self, base: &Path) -> String {
        let (tag, class) = match self.task {
            TaskName::CausalLm => ("text-generation", "AutoModelForCausalLM"),
            TaskName::TokenClassification => {
                ("token-classification", "AutoModelForTokenClassification")
            }
            _ => ("text-classification", "AutoModelForSequenceClassification"),
        };
        let on_hub = name_of_snapshot(base);
        let name = on_hub.clone().unwrap_or_else(|| last_name(base));
        let library = if self.of_adapters {
            "adapter-transformers"
        } else {
            "peft"
        };
        let mut text = format!("---\nlibrary_name: {library}\n");
        // The Hub refuses cards whose base is the path of a directory.
        if let Some(name) = &on_hub {
            let _ = writeln!(text, "base_model: {name}");
        }
        let _ = writeln!(text, "pipeline_tag: {tag}\ntags:");
        if let Some(name) = &on_hub {
            let _ = writeln!(text, "- base_model:adapter:{name}");
        }
        if !self.report.modules.is_empty() {
            text.push_str("- lora\n");
        }
        text.push_str("- transformers\n---\n\n");
        let _ = writeln!(text, "# Adapter of {name}\n\n{}\n", self.summary(&name));
        let (import, load) = if self.of_adapters {
            (
                "import adapters",
                "adapters.init(model)\nmodel.load_adapter(\"path/of/this/directory\", set_active=True)",
            )
        } else {
            (
                "from peft import PeftModel",
                "model = PeftModel.from_pretrained(model, \"path/of/this/directory\")",
            )
        };
        let _ = writeln!(
            text,
            "## Use\n\n```python\n{import}\nfrom transformers import {class}, AutoTokenizer\n\n\
             model = {class}.from_pretrained({base}{labels})\n\
             {load}\n\
             tokenizer = AutoTokenizer.from_pretrained(\"path/of/this/directory\")\n```\n",
            base = serde_json::Value::from(name.as_str()),
            labels = self
                .outputs()
                .map_or(String::new(), |n| format!(", num_labels={n}")),
        );
        for note in &self.notes {
            let _ = writeln!(text, "Note: {note}.\n");
        }
        let files = self.plan.data.paths().iter();
        let mut data = files.map(|path| last_name(path)).collect::<Vec<_>>();
        if let Some(shares) = self.plan.data.shares() {
            for (name, share) in data.iter_mut().zip(shares) {
                *name = format!("{name} ({share:.3})");
            }
        }
        let data = data.join(", ");
        let _ = writeln!(
            text,
            "## Training\n\n| | |\n| --- | --- |\n| task | {} |\n| data | {data} |\n| steps | {} |\n| learning rate | {} |\n| seed | {} |\n",
            self.task, self.steps, self.plan.lr, self.plan.seed
        );
        if !self.after.is_empty() {
            text.push_str("| metric | before | after |\n| --- | --- | --- |\n");
            for (name, after) in self.after {
                let before = self
                    .before
                    .get(name)
                    .map_or("".into(), |value| format!("{value:.4}"));
                // Names of classes may be part of a metric's name.
                let name: String = name.chars().filter(|letter| !letter.is_control()).collect();
                let name = name.replace('|', "\\|");
                let _ = writeln!(text, "| {name} | {before} | {after:.4} |");
            }
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "### Framework versions\n\n- lora-train {}\n- Burn {BURN_VERSION}",
            env!("CARGO_PKG_VERSION")
        );
        text
    }

    /// Returns the number of outputs of the trained head, a matrix `[outputs, inputs]` in files.
    fn outputs(&self) -> Option<usize> {
        const HEADS: [&str; 3] = ["classifier.weight", "out_proj.weight", "score.weight"];
        let is_head = |name: &str| HEADS.iter().any(|head| name.ends_with(head));
        let mut saved = self.report.saved.iter();
        let head = saved.find(|saved| self.task != TaskName::CausalLm && is_head(&saved.name))?;
        let ends = [head.shape.first()?, head.shape.last()?];
        Some(*ends[usize::from(head.transposed)])
    }

    fn summary(&self, base: &str) -> String {
        let modules = self.report.modules.iter();
        let names: BTreeSet<&str> = modules
            .filter_map(|module| module.module.rsplit('.').next())
            .collect();
        let mut parts = Vec::new();
        if !names.is_empty() {
            let names: Vec<&str> = names.into_iter().collect();
            let (rank, alpha) = (self.report.config.rank, self.report.config.alpha);
            parts.push(format!(
                "LoRA with rank {rank} and alpha {alpha} on {}",
                names.join(", ")
            ));
        }
        let added = self.added.iter();
        parts.extend(added.map(|(name, summary)| format!("{name}: {summary}")));
        let saved: Vec<&str> = self
            .report
            .saved
            .iter()
            .map(|saved| saved.name.as_str())
            .collect();
        if !saved.is_empty() {
            parts.push(format!("fully trained {}", saved.join(", ")));
        }
        format!("Trained for {base}: {}.", parts.join("; "))
    }
}

/// Returns the last part of a path, with the letters that mean nothing in Markdown.
fn last_name(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars()
        .filter(|letter| letter.is_alphanumeric() || " -_.,+".contains(*letter))
        .collect()
}
