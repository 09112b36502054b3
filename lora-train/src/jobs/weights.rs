//! Weights that a run starts from, and the writing of trained weights.

use super::adapter::factor_option;
use super::beside::{NOT_MERGED, refuse_alone};
use super::new_tokens::NewTokens;
use super::plan::TrainPlan;
use super::session::{Base, Session, load_model, trained_in_full};
use super::sources::Sources;
use crate::TrainError;
use burn::tensor::Device;
use lora_core::file::AdapterDir;
use lora_core::files::Overwrite;
use lora_core::{Adapted, AttachReport, LoraConfig};
use lora_models::adapter_layers::ADAPTER_LAYERS_DIR;
use lora_models::added::has_own_part;
use lora_models::hub::name_of_snapshot;
use lora_models::prefix::PrefixKind;
use lora_models::tokenizer::{Tokenizer, TokenizerFiles};
use lora_models::{AdapterLoadOptions, FamilyConfig, Pretrained, SaveAdapter};
use std::path::Path;

/// Returns the name of the directory with the trained weights: a PEFT adapter, or a model with `--full`.
pub(crate) fn weights_name(full: bool) -> &'static str {
    if full { "model" } else { "adapter" }
}

/// Checks, on a model without values, what a run would attach to it, and gives its base the tokens and the length that it has then.
/// Returns the model, and the tokens that the run adds.
pub(crate) fn check_attached<M: Pretrained>(
    plan: &TrainPlan,
    sources: &Sources,
    outline: M,
    base: &mut Base,
) -> Result<(M, Option<NewTokens>), TrainError> {
    if plan.method.is_full() {
        return Ok((outline, None));
    }
    let outline = add_modules(plan, &base.tokenizer, outline)?;
    // A prefix takes some of the positions.
    base.info.max_length = outline.info().max_length;
    if sources.one().is_some() {
        return Ok((outline, None));
    }
    match &plan.lora {
        // Without anything yet, rows of new tokens follow, whose ids are found below.
        Some(lora) if lora.trains_anything() => {
            outline.attach_report(&with_targets(plan, lora, &outline))?;
        }
        Some(_) => {}
        None if plan.options.merge => return Err(TrainError::config("merge", NOT_MERGED)),
        None => {}
    }
    let tokens = NewTokens::add(plan, base, &outline)?;
    Ok((outline, tokens))
}

/// Trained values that a run starts from, beside those of its sources.
#[derive(Default)]
pub(crate) struct StartingWeights<'a> {
    /// Directory of a checkpoint's weights.
    pub checkpoint: Option<&'a Path>,
    /// Its opened adapter.
    pub saved: Option<&'a AdapterDir>,
    /// Tokens to add to a model without trained weights.
    pub tokens: Option<NewTokens>,
}

/// Loads the model that a run starts from: with a checkpoint's weights, an adapter's, or new ones.
pub(crate) fn starting_weights<M: Pretrained>(
    plan: &TrainPlan,
    sources: &Sources,
    config: &M::Config,
    options: &M::Options,
    start: StartingWeights<'_>,
    device: &Device,
) -> Result<Session<M>, TrainError> {
    let dir = &sources.model;
    let StartingWeights {
        checkpoint,
        saved,
        tokens,
    } = start;
    if plan.method.is_full() {
        let mut session = match (checkpoint, plan.options.from_scratch) {
            (None, true) => Session::random(dir, config, options, plan.seed, device)?,
            (None, false) => Session::open(dir, config, None, options, device)?,
            (Some(saved), _) => {
                let config = M::Config::from_dir(saved)?;
                // A checkpoint has the trained head; the tokenizer is the base model's.
                let options = M::trained_options(options);
                let loaded = load_model::<M>(saved, &config, None, &options, device)?;
                Session::new(dir, &config, loaded)?
            }
        };
        session.model = trained_in_full(session.model)?;
        return Ok(session);
    }
    // A new head takes nothing of the adapter but its factors and its tokens.
    let start = sources.one().filter(|_| !plan.options.fresh_head);
    let mut session = match saved.or(start) {
        None => Session::<M>::open(dir, config, None, options, device)?,
        Some(adapter) => {
            let options = M::options_for_adapter(config, options, adapter)?;
            Session::<M>::open(dir, config, None, &options, device)?
        }
    };
    let model = session.model;
    let adapted = match (saved, sources.one(), &plan.lora) {
        (Some(saved), _, _) => model.load_opened_adapter(saved, &AdapterLoadOptions::default())?,
        (None, Some(adapter), _) => start_from(plan, model, adapter)?
            .try_map(|model| add_modules(plan, &session.base.tokenizer, model))?,
        (None, None, None) => model
            .freeze_all_but_head()?
            .try_map(|model| add_modules(plan, &session.base.tokenizer, model))?,
        (None, None, Some(lora)) => {
            let mut lora = with_targets(plan, lora, &model);
            let model = match &tokens {
                Some(tokens) => tokens.give_rows(model, &mut lora)?,
                None => model,
            };
            model
                .attach(&lora)?
                .try_map(|model| add_modules(plan, &session.base.tokenizer, model))?
        }
    };
    let (model, mut report) = adapted.into_parts();
    report.notes.extend(tokens.map(|tokens| tokens.to_string()));
    if plan.options.merge {
        refuse_alone(&model, &report, "merge")?;
    }
    // A prefix takes some of the positions, and an adapter may bring tokens.
    session.base.info = model.info();
    session.model = model;
    session.adapter = Some(report);
    Ok(session)
}

/// Adds the virtual tokens and adapter layers of the options to a model; those that came with the adapter are trained further.
fn add_modules<M: Pretrained>(
    plan: &TrainPlan,
    tokenizer: &Tokenizer,
    model: M,
) -> Result<M, TrainError> {
    let model = match (&plan.prefix, model.prefix()) {
        (None, _) => model,
        (Some(config), None) => {
            let config = match &plan.options.prompt_text {
                Some(text) => config.clone().with_start(text_start(tokenizer, text)?),
                None => config.clone(),
            };
            model.with_prefix(&config)?
        }
        (Some(config), Some(own)) if (config.kind, config.tokens) == (own.kind(), own.tokens()) => {
            model
        }
        (Some(config), Some(own)) => {
            let message = format!(
                "is {} for {}, but the adapter to start from has {} virtual tokens for {}; leave it out to train \
                 that further",
                config.tokens,
                config.kind.name(),
                own.tokens(),
                own.kind().name()
            );
            return Err(TrainError::config("prefix", message));
        }
    };
    match (&plan.adapter_layers, &model.added().adapters) {
        (None, _) => Ok(model),
        (Some(config), None) => Ok(model.with_adapter_layers(config)?),
        (Some(config), Some(own)) if own.config().is_like(config) => Ok(model),
        (Some(_), Some(own)) => {
            let message = format!(
                "has adapter layers that differ from those of the adapter to start from ({}); give its method, without \
                 `adapter_size`, `adapter_activation` and `adapter_drop`, to train them further",
                own.summary()
            );
            Err(TrainError::config("method", message))
        }
    }
}

/// Returns the tokens that virtual tokens start from, as PEFT's: with those that the tokenizer puts around a text.
fn text_start(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TrainError> {
    let tokens = tokenizer.encode(text)?;
    if tokens.is_empty() {
        let message = "has no tokens; give a text, or leave it out for random values";
        return Err(TrainError::config("prompt_text", message));
    }
    Ok(tokens)
}

/// Returns the adapter's configuration with the model's default targets, if the options name none.
fn with_targets<M: Pretrained>(plan: &TrainPlan, lora: &LoraConfig, model: &M) -> LoraConfig {
    if plan.options.targets.is_some() || !lora.has_targets() {
        lora.clone()
    } else {
        lora.clone().with_targets(model.default_targets())
    }
}

/// Loads the adapter to start from. It has its own rank, alpha and targets, so that other values in the options are an
/// error; dropout affects training alone, and is taken from the options.
fn start_from<M: Pretrained>(
    plan: &TrainPlan,
    model: M,
    adapter: &AdapterDir,
) -> Result<Adapted<M>, TrainError> {
    let options = &plan.options;
    // The directory of a converted file is a temporary one.
    let dir = options.adapter.as_deref().unwrap_or(adapter.path());
    if adapter.kind().is_added() {
        if let Some(name) = factor_option(options) {
            let message = format!(
                "is an option of LoRA, and {} has none; leave it out to train that further",
                dir.display()
            );
            return Err(TrainError::config(name, message));
        }
        // Without a method of its own, a run trains what the adapter has.
        if let (Some(method), Some(_)) = (&options.method, &plan.lora) {
            let message = format!(
                "is {method}, and the adapter {} has virtual tokens or adapter layers alone; leave it out to train that further",
                dir.display()
            );
            return Err(TrainError::config("method", message));
        }
        let load = AdapterLoadOptions::default().with_factors_only(options.fresh_head);
        return Ok(model.load_opened_adapter(adapter, &load)?);
    }
    if plan.lora.is_none() {
        let (name, method) = if options.prefix_only {
            ("prefix_only", "a prefix alone".to_string())
        } else {
            ("method", format!("{} alone", plan.method))
        };
        let message = format!(
            "trains {method}, and {} has LoRA; leave it out to train both",
            dir.display()
        );
        return Err(TrainError::config(name, message));
    }
    let load = AdapterLoadOptions::default()
        .with_dropout(options.dropout)
        .with_factors_only(options.fresh_head);
    let adapted = model.load_opened_adapter(adapter, &load)?;

    let mut config = adapter.config()?.clone();
    config.dropout = options.dropout.unwrap_or(config.dropout);
    let mut asked = config.clone();
    asked.rank = options.rank.unwrap_or(asked.rank);
    // The file of another program was read with this alpha.
    let is_own = dir.is_file() && options.rank.is_none() && options.targets.is_none();
    asked.alpha = options.alpha.filter(|_| !is_own).unwrap_or(asked.alpha);
    if let (Some(_), Some(lora)) = (&options.targets, &plan.lora) {
        asked.targets = lora.targets.clone();
    }
    if asked == config {
        return Ok(adapted);
    }
    let asked = lora_core::detach(adapted.module().clone()).attach(&asked)?;
    let modules = [&asked, &adapted].map(|adapted| {
        let modules = adapted.report().modules.iter();
        modules.map(|m| (m.module.clone(), m.total_rank(), m.scale))
    });
    let [asked, own] = modules;
    if asked.eq(own) {
        return Ok(adapted);
    }
    let message = format!(
        "{} has other modules, ranks or scales than `rank`, `alpha` and `targets` ask for; \
         leave these out to train it further, or leave it out to start a new one. It has:\n{}",
        dir.display(),
        adapted.report()
    );
    Err(TrainError::config("adapter", message))
}

/// Writer of trained weights.
pub(crate) struct Saver<M: Pretrained> {
    base: Base,
    config: M::Config,
    options: M::Options,
    report: Option<AttachReport>,
}

impl<M: Pretrained> Saver<M> {
    pub fn new(
        base: Base,
        config: M::Config,
        options: M::Options,
        report: Option<AttachReport>,
    ) -> Self {
        Self {
            base,
            config,
            options,
            report,
        }
    }

    /// Checks that the files of the base are as they were when it was read.
    pub fn check_base_files(&self) -> Result<(), TrainError> {
        Ok(self.base.weight_files.check()?)
    }

    /// Writes the adapter, or with `--full` the model, as `dir`, if the base has not changed meanwhile.
    pub fn save(&self, model: &M, dir: &Path, overwrite: Overwrite) -> Result<(), TrainError> {
        let files = self.base.tokenizer_files.clone().unwrap_or_default();
        self.save_with(model, dir, files, overwrite)
    }

    /// As [`save`](Self::save), with these files beside an adapter.
    pub fn save_with(
        &self,
        model: &M,
        dir: &Path,
        files: TokenizerFiles,
        overwrite: Overwrite,
    ) -> Result<(), TrainError> {
        self.check_base_files()?;
        match &self.report {
            Some(report) => {
                let dir_name = || self.base.dir.to_string_lossy().into_owned();
                let base = name_of_snapshot(&self.base.dir).unwrap_or_else(dir_name);
                let adapted = Adapted::from_parts(model.clone(), report.clone());
                adapted.save_adapter_with(dir, Some(&base), files, overwrite)?;
            }
            None => {
                model.export(dir, &self.base.export_options(), overwrite)?;
            }
        }
        Ok(())
    }

    /// Returns the adapters' report; `None` with `--full`.
    pub fn report(&self) -> Option<&AttachReport> {
        self.report.as_ref()
    }

    /// Returns what a user of PEFT must know about the adapter in `dir`, a line each.
    pub fn peft_notes(&self, model: &M, dir: &Path) -> Vec<String> {
        let Some(report) = &self.report else {
            return Vec::new();
        };
        let (dir, mut notes) = (dir.display(), Vec::new());
        let has_factors = !report.modules.is_empty() || !model.added().is_empty();
        if !has_factors && !report.is_empty() {
            notes.push(format!(
                "PEFT loads no adapter without factors, such as the biases in {dir} alone: merge it for Python (`lora merge`)"
            ));
        }
        let own = has_own_part(model, report);
        if let Some(prefix) = model.prefix().filter(|_| own) {
            let name = prefix.kind().name();
            notes.push(format!(
                "PEFT loads {dir} without the {name}, an adapter of its own in {dir}/{name}: merge the first into the base, \
                 and load the second on the result"
            ));
        }
        if model
            .prefix()
            .is_some_and(|prefix| prefix.kind() == PrefixKind::Activations)
        {
            notes.push("PEFT has no prefix-layer: this program alone loads it".to_string());
        }
        match &model.added().adapters {
            Some(_) if own => notes.push(format!(
                "the adapter layers in {dir}/{ADAPTER_LAYERS_DIR} are files of the library `adapters`, which PEFT does not load"
            )),
            Some(_) => notes.push(format!(
                "{dir} has files of the library `adapters` (`load_adapter`), and not of PEFT"
            )),
            None => {}
        }
        let (own, tokens) = (self.config.sizes().vocab_size, model.info().vocab_size);
        if own != tokens {
            notes.push(format!(
                "the vocabulary has {tokens} tokens, the base {own}: with PEFT, call `resize_token_embeddings({tokens})` before \
                 loading {dir}; its tokenizer is beside it"
            ));
        }
        notes
    }

    /// Loads the weights that [`save_into`](Self::save_into) wrote, on the base model.
    pub fn reload(&self, dir: &Path, device: &Device) -> Result<M, TrainError> {
        let dir = dir.join(weights_name(self.report.is_none()));
        if self.report.is_some() {
            return self.with_adapter(&dir, &self.options, device);
        }
        let config = M::Config::from_dir(&dir)?;
        let options = M::trained_options(&self.options);
        Ok(load_model::<M>(&dir, &config, None, &options, device)?.model)
    }

    /// Loads the model in f32, without quantization, with a saved adapter, to merge them: merged quantized weights would keep their
    /// rounding.
    pub fn unquantized(&self, adapter: &Path, device: &Device) -> Result<M, TrainError> {
        self.with_adapter(adapter, &M::unquantized_options(&self.options), device)
    }

    fn with_adapter(
        &self,
        adapter: &Path,
        options: &M::Options,
        device: &Device,
    ) -> Result<M, TrainError> {
        let adapter = AdapterDir::open(adapter)?;
        let (dir, config) = (&self.base.dir, &self.config);
        let loaded = load_model::<M>(dir, config, Some(&adapter), options, device)?;
        // The base is that of the training.
        self.check_base_files()?;
        Ok(loaded.model)
    }

    /// Writes the weights of a checkpoint in `dir`.
    pub fn save_into(&self, model: &M, dir: &Path) -> Result<(), TrainError> {
        let dir = dir.join(weights_name(self.report.is_none()));
        self.save(&model.valid(), &dir, Overwrite::Refuse)
    }
}
