//! What a run starts from, and how what it trained is written.

use super::adapter::factor_option;
use super::open::{Base, Loaded, Opens, from_scratch, load_base};
use super::plan::TrainPlan;
use super::prefix::NOT_MERGED;
use crate::TrainError;
use crate::trainer::Checkpoint;
use burn::tensor::Device;
use lora_core::files::Overwrite;
use lora_core::{AttachReport, LoraConfig, peft};
use lora_models::ExportOptions;
use lora_models::prefix::is_prefix;
use std::path::Path;

/// Name of the directory with what was trained: a PEFT adapter, or a whole model with `--full`.
pub(crate) fn weights_name(full: bool) -> &'static str {
    if full { "model" } else { "adapter" }
}

/// The model that a run starts from: the checkpoint's weights, the adapter's, or fresh ones.
pub(crate) fn starting_weights<M: Opens>(
    plan: &TrainPlan,
    how: &M::How,
    checkpoint: Option<&Checkpoint>,
    device: &Device,
) -> Result<Loaded<M>, TrainError> {
    let saved = checkpoint.map(|c| c.path.join(weights_name(plan.options.full)));
    if plan.options.full {
        let mut loaded = match (&saved, plan.options.from_scratch) {
            (None, true) => from_scratch(&plan.model, how, plan.seed, device)?,
            (None, false) => load_base(&plan.model, None, how, device)?,
            (Some(saved), _) => {
                // A checkpoint has the head that was trained.
                let loaded: Loaded<M> = load_base(saved, None, &M::trained(how), device)?;
                // Tokenizer and origin stay those of the base model.
                let mut base = loaded.base;
                base.dir = plan.model.clone();
                Loaded { base, ..loaded }
            }
        };
        loaded.model = loaded.model.set_require_grad(true);
        return Ok(loaded);
    }
    let mut loaded: Loaded<M> = load_base(&plan.model, None, how, device)?;
    let (model, report) = match (saved, &plan.options.adapter) {
        (Some(saved), _) => loaded.model.load_adapter(saved)?,
        (None, Some(adapter)) => {
            let (model, report) = start_from(plan, loaded.model, adapter)?;
            (add_prefix(plan, model)?, report)
        }
        (None, None) => {
            let (model, report) = match &plan.lora {
                None => lora_core::freeze(loaded.model).into_parts(),
                Some(lora) => {
                    let lora = complete(plan, lora, &loaded.model);
                    loaded.model.attach(&lora)?
                }
            };
            (add_prefix(plan, model)?, report)
        }
    };
    if plan.options.merge && report.is_empty() {
        return Err(TrainError::config("merge", NOT_MERGED));
    }
    // A prefix takes some of the positions.
    loaded.base.traits = model.traits();
    loaded.model = model;
    loaded.adapter = Some(report);
    Ok(loaded)
}

/// Puts the prefix that is asked for on a model; one that came with an adapter is gone on with.
fn add_prefix<M: Opens>(plan: &TrainPlan, model: M) -> Result<M, TrainError> {
    match (&plan.prefix, model.prefix()) {
        (None, _) => Ok(model),
        (Some(config), None) => Ok(model.with_prefix(config)?),
        (Some(config), Some(prefix)) if config.tokens == prefix.tokens() => Ok(model),
        (Some(config), Some(prefix)) => Err(TrainError::config(
            "prefix",
            format!(
                "is {}, but the adapter to start from has a prefix of {} virtual tokens; leave it out to go on \
                 with that",
                config.tokens,
                prefix.tokens()
            ),
        )),
    }
}

/// The model's default targets, where the options name none.
fn complete<M: Opens>(plan: &TrainPlan, lora: &LoraConfig, model: &M) -> LoraConfig {
    match plan.options.targets.is_some() || plan.options.bitfit {
        true => lora.clone(),
        false => lora.clone().with_targets(model.default_targets()),
    }
}

/// An adapter that is loaded brings its own rank, alpha and targets: asking for others is an error,
/// not a surprise. Dropout is a matter of training, and taken from the options.
fn start_from<M: Opens>(
    plan: &TrainPlan,
    model: M,
    dir: &Path,
) -> Result<(M, AttachReport), TrainError> {
    let options = &plan.options;
    if is_prefix(dir)? {
        if let Some(name) = factor_option(options) {
            let message = format!(
                "is an option of LoRA, and {} is a prefix alone; leave it out to go on with that",
                dir.display()
            );
            return Err(TrainError::config(name, message));
        }
        return Ok(model.load_adapter(dir)?);
    }
    if options.prefix_only {
        let message = format!(
            "trains a prefix alone, and {} has LoRA; leave it out to train both",
            dir.display()
        );
        return Err(TrainError::config("prefix_only", message));
    }
    let mut config = peft::read_config(dir)?;
    config.dropout = options.dropout.unwrap_or(config.dropout);
    let (model, report) = match options.fresh_head {
        false => model.load_adapter_with(dir, &config)?,
        true => model.load_adapter_factors(dir, &config)?,
    };

    let mut asked = config.clone();
    asked.rank = options.rank.unwrap_or(asked.rank);
    asked.alpha = options.alpha.unwrap_or(asked.alpha);
    if let (Some(_), Some(lora)) = (&options.targets, &plan.lora) {
        asked.targets = lora.targets.clone();
    }
    if asked == config {
        return Ok((model, report));
    }
    let (_, asked) = lora_core::detach(model.clone()).attach(&asked)?;
    let modules = |report: &AttachReport| -> Vec<(String, usize, f64)> {
        let modules = report.modules.iter();
        modules
            .map(|m| (m.module.clone(), m.total_rank(), m.scale))
            .collect()
    };
    if modules(&asked) == modules(&report) {
        return Ok((model, report));
    }
    Err(TrainError::config(
        "adapter",
        format!(
            "{} has other modules, ranks or scales than `rank`, `alpha` and `targets` ask for; \
             leave these out to go on with it, or leave it out to start a fresh one. It has:\n{report}",
            dir.display()
        ),
    ))
}

/// Writes what was trained.
pub(crate) struct Saver<M: Opens> {
    base: Base,
    how: M::How,
    report: Option<AttachReport>,
}

impl<M: Opens> Clone for Saver<M> {
    fn clone(&self) -> Self {
        Self {
            base: self.base.clone(),
            how: self.how.clone(),
            report: self.report.clone(),
        }
    }
}

impl<M: Opens> Saver<M> {
    pub fn new(base: Base, how: M::How, report: Option<AttachReport>) -> Self {
        Self { base, how, report }
    }

    /// Writes the adapter, or the model where there is none, as `dir`.
    pub fn save(&self, model: &M, dir: &Path, overwrite: Overwrite) -> Result<(), TrainError> {
        match &self.report {
            Some(report) => {
                let base = self.base.dir.to_string_lossy();
                model.save_adapter(report, dir, Some(&base), overwrite)?;
            }
            None => {
                let options = ExportOptions {
                    base_dir: Some(self.base.dir.clone()),
                    ..ExportOptions::default()
                };
                model.export(dir, &options, overwrite)?;
            }
        }
        Ok(())
    }

    /// The weights of a directory that [`save`](Self::save) wrote, on the base model.
    pub fn reload(&self, dir: &Path, device: &Device) -> Result<M, TrainError> {
        let dir = dir.join(weights_name(self.report.is_none()));
        let loaded: Loaded<M> = match self.report {
            Some(_) => load_base(&self.base.dir, Some(&dir), &self.how, device)?,
            None => load_base(&dir, None, &M::trained(&self.how), device)?,
        };
        Ok(loaded.model)
    }

    /// The model in floats with an adapter that was saved, to merge it there: what is quantised would be merged with
    /// its rounding.
    pub fn in_floats(&self, adapter: &Path, device: &Device) -> Result<M, TrainError> {
        let how = M::in_floats(&self.how);
        let loaded: Loaded<M> = load_base(&self.base.dir, Some(adapter), &how, device)?;
        Ok(loaded.model)
    }

    /// Writes a checkpoint's part.
    pub fn save_into(&self, model: &M, dir: &Path) -> Result<(), TrainError> {
        let dir = dir.join(weights_name(self.report.is_none()));
        self.save(&model.valid(), &dir, Overwrite::Refuse)
    }
}
