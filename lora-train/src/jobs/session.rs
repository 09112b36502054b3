//! Sessions: a model with tokenizer and adapter.

use super::batch_limit::BatchLimit;
use super::memory_check::check_memory;
use crate::TrainError;
use crate::data::Padding;
use crate::progress::Screen;
use burn::tensor::Device;
use lora_core::file::{AdapterDir, TOKENIZER_LIMIT};
use lora_core::files::read_companion;
use lora_core::{AttachReport, LoraError, split_weights, trainable_summary};
use lora_models::added::load_modules;
use lora_models::chat::TEMPLATE_FILES;
use lora_models::checkpoint::WeightFiles;
use lora_models::generate::GenerationFile;
use lora_models::tokenizer::{Tokenizer, TokenizerFiles};
use lora_models::{
    AdapterLoadOptions, ExportOptions, FamilyConfig, ModelDir, ModelError, ModelInfo, Pretrained,
};
use std::path::{Path, PathBuf};

/// Base of a run: tokenizer, directory and sizes, which stay while weights change.
#[derive(Clone)]
pub struct Base {
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// Directory of the model.
    pub dir: PathBuf,
    /// Files of the weights, in the state in which they were read.
    pub weight_files: WeightFiles,
    /// Names and contents of the tokenizer's files, if it has other tokens than that of the directory, or another chat template.
    pub tokenizer_files: Option<TokenizerFiles>,
    /// Directory of the adapter, if it brings a chat template of its own.
    template_dir: Option<PathBuf>,
    /// Sizes and token ids.
    pub info: ModelInfo,
    /// Settings for text generation that come with the model; `None` for an encoder.
    pub generation: Option<GenerationFile>,
    /// Tokens of the adapter that no tokenizer knows, for people.
    pub(crate) unknown_tokens: Option<String>,
    /// Multiple of tokens to which batches are padded.
    pub pad_to_multiple_of: usize,
    /// Largest batch that the device takes.
    pub(crate) limit: BatchLimit,
}

/// Model read from files, with tokenizer and adapter.
pub struct Session<M> {
    /// Model, with the adapter if there is one.
    pub model: M,
    /// Report of the adapter.
    pub adapter: Option<AttachReport>,
    /// Tokenizer and sizes.
    pub base: Base,
    /// Description of the loaded model.
    pub summary: String,
}

impl<M: Pretrained> Session<M> {
    /// Loads a model, with an adapter if there is one. `config` is the configuration of `dir`, as the model's type has it.
    ///
    /// # Errors
    /// If a file is missing, malformed or not supported, or a weight that cannot be split is larger than the device binds in
    /// one buffer.
    pub fn open(
        dir: &ModelDir,
        config: &M::Config,
        adapter: Option<&AdapterDir>,
        options: &M::Options,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let loaded = load_model::<M>(dir.path(), config, adapter, options, device)?;
        let mut session = Self::new(dir, config, loaded)?;
        if let Some(adapter) = adapter {
            let own = config.sizes().vocab_size;
            let note = session.base.use_tokenizer_of(adapter, dir, own)?;
            if let Some(report) = &mut session.adapter {
                report
                    .notes
                    .extend(note.or(session.base.unknown_tokens.clone()));
            }
        }
        Ok(session)
    }

    /// Returns the model without values, with the prefix of an adapter, and the base of the session, with the adapter's tokens: all
    /// that data and options are checked by before weights are read.
    ///
    /// # Errors
    /// If the configuration, a tokenizer or the prefix is malformed or not supported.
    pub(crate) fn outline(
        dir: &ModelDir,
        config: &M::Config,
        adapter: Option<&AdapterDir>,
        options: &M::Options,
        device: &Device,
    ) -> Result<(M, Base), TrainError> {
        let mut model = M::init_meta(config, options, device)?;
        if let Some(adapter) = adapter {
            model = load_modules(model, adapter)?;
        }
        let limit = BatchLimit::new(config.sizes(), device);
        let mut base = Base::new(model.info(), limit, dir)?;
        if let Some(adapter) = adapter {
            let own = base.info.vocab_size;
            base.set_tokens(model.tokens_with(adapter)?.unwrap_or(own));
            base.use_tokenizer_of(adapter, dir, own)?;
        }
        Ok((model, base))
    }

    /// Adds the tokenizer of a model directory to a loaded model.
    ///
    /// # Errors
    /// If the tokenizer is missing or not supported, or has more tokens than the model.
    pub(crate) fn new(
        dir: &ModelDir,
        config: &M::Config,
        loaded: Loaded<M>,
    ) -> Result<Self, TrainError> {
        let Loaded {
            model,
            adapter,
            summary,
            weight_files,
        } = loaded;
        let limit = BatchLimit::new(config.sizes(), &model.device());
        let mut base = Base::new(model.info(), limit, dir)?;
        base.weight_files = weight_files;
        Ok(Self {
            base,
            model,
            adapter,
            summary,
        })
    }

    /// Creates a model with random weights, for a directory with a configuration and a tokenizer only.
    ///
    /// # Errors
    /// If the tokenizer is missing or not supported.
    pub(crate) fn random(
        dir: &ModelDir,
        config: &M::Config,
        options: &M::Options,
        seed: u64,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let shapes = M::weight_shapes(config, options, device)?;
        let weights = shapes
            .iter()
            .map(|(_, shape)| shape.iter().product::<usize>());
        check_memory(weights.sum(), 1, "the weights", device)?;
        let model = M::init_random(config, options, seed, device)?;
        let parameters = trainable_summary(&model).total();
        let summary = format!("random weights, {parameters} parameters");
        let loaded = Loaded {
            model,
            adapter: None,
            summary,
            weight_files: WeightFiles::default(),
        };
        Self::new(dir, config, loaded)
    }

    /// Refuses a model with untrained modules that no adapter brings.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names the modules.
    pub(crate) fn check_trained(self) -> Result<Self, TrainError> {
        let modules = self.model.random_modules();
        if self.adapter.is_some() || modules.is_empty() {
            return Ok(self);
        }
        let message = format!(
            "is missing: the checkpoint in {} has no {}, so the outputs of the model alone would be \
             random; give an adapter that was trained with it, or a merged model",
            self.base.dir.display(),
            modules.join(" and no ")
        );
        Err(TrainError::config("adapter", message))
    }
}

impl Base {
    fn new(info: ModelInfo, limit: BatchLimit, dir: &ModelDir) -> Result<Self, TrainError> {
        let generation = match dir.config().labels() {
            None => Some(dir.generation()?),
            Some(_) => None,
        };
        Ok(Self {
            // Tokens that no text uses may be missing from the model, such as a padding token.
            tokenizer: dir.tokenizer()?.with_limit(info.vocab_size),
            dir: dir.path().to_path_buf(),
            weight_files: WeightFiles::default(),
            tokenizer_files: None,
            template_dir: None,
            unknown_tokens: None,
            info,
            generation,
            pad_to_multiple_of: 1,
            limit,
        })
    }

    /// Sets the number of tokens of the model.
    pub(crate) fn set_tokens(&mut self, tokens: usize) {
        self.info.vocab_size = tokens;
        self.tokenizer = self.tokenizer.clone().with_limit(tokens);
    }

    /// Uses the tokenizer beside an adapter in place of the base's, if it is the base's with more tokens, and returns a note that
    /// says so. Without one, [`unknown_tokens`](Self::unknown_tokens) tells of the adapter's tokens that the base's tokenizer lacks.
    /// `own` is the number of tokens of the model without the adapter.
    ///
    /// # Errors
    /// If the adapter brings tokens, and its tokenizer is malformed or not supported.
    pub(crate) fn use_tokenizer_of(
        &mut self,
        adapter: &AdapterDir,
        dir: &ModelDir,
        own: usize,
    ) -> Result<Option<String>, TrainError> {
        // The usual case: training leaves the base's own files beside the adapter.
        if self.tokenizer.is_copied_in(adapter.path()) {
            return Ok(None);
        }
        self.use_template_of(adapter.path())?;
        let found = match dir.tokenizer_in(adapter.path()) {
            Ok(found) => Some(found),
            Err(ModelError::MissingFile { .. }) => None,
            // Python's trainers leave all kinds of tokenizers beside adapters that need none.
            Err(_) if self.info.vocab_size == own => None,
            Err(error) => return Err(error.into()),
        };
        let added = found.and_then(|found| Some((self.tokenizer.added_in(&found)?, found)));
        let Some((added, found)) = added.filter(|(added, _)| *added > 0) else {
            self.unknown_tokens = self.tokens_without_name(adapter, own)?;
            return Ok(None);
        };
        self.tokenizer = found.with_limit(self.info.vocab_size);
        self.tokenizer_files = Some(adapter.tokenizer_files()?);
        Ok(Some(format!(
            "the tokenizer beside the adapter is used, with {added} more tokens than that of the base"
        )))
    }

    /// Uses the chat template beside an adapter in place of the base's, if there is one.
    fn use_template_of(&mut self, adapter: &Path) -> Result<(), TrainError> {
        let read = |name: &&str| {
            let bytes = read_companion(adapter, name, TOKENIZER_LIMIT)?;
            Ok(bytes.map(|bytes| (name.to_string(), bytes)))
        };
        let files = TEMPLATE_FILES.iter().map(read);
        let files: Vec<Option<_>> = files.collect::<Result<_, LoraError>>()?;
        if files.iter().any(Option::is_some) {
            self.template_dir = Some(adapter.into());
            self.keep_template(files.into_iter().flatten().collect())?;
        }
        Ok(())
    }

    /// Keeps another chat template in place of the base's, for the files of adapters and models that are written.
    ///
    /// # Errors
    /// If a file of the tokenizer cannot be read.
    pub(crate) fn keep_template(&mut self, template: TokenizerFiles) -> Result<(), TrainError> {
        let mut files = match self.tokenizer_files.take() {
            Some(files) => files,
            None => self.tokenizer.read_files()?,
        };
        files.retain(|(name, _)| !TEMPLATE_FILES.contains(&name.as_str()));
        files.extend(template);
        self.tokenizer_files = Some(files);
        Ok(())
    }

    /// Returns the directory of the chat template.
    pub(crate) fn template_dir(&self) -> &Path {
        self.template_dir.as_deref().unwrap_or(&self.dir)
    }

    /// Describes the tokens for which an adapter has rows and the tokenizer in use has no text.
    fn tokens_without_name(
        &self,
        adapter: &AdapterDir,
        own: usize,
    ) -> Result<Option<String>, TrainError> {
        if !adapter.is_lora() {
            return Ok(None);
        }
        let resized = Some(self.info.vocab_size).filter(|&rows| rows > own);
        let trained = adapter.largest_token()?.map(|id| id.saturating_add(1));
        let known = self.tokenizer.largest_id().map_or(0, |id| id as usize + 1);
        let rows = resized.max(trained).filter(|&rows| rows > known);
        Ok(rows.map(|rows| {
            format!(
                "it has rows for {rows} tokens, and the tokenizer of the base has {known}: if the training added tokens, put its \
                 tokenizer into {}; their text is split into others without it",
                adapter.path().display()
            )
        }))
    }

    /// Returns the options for writing a model with the base's other files.
    pub(crate) fn export_options(&self) -> ExportOptions {
        ExportOptions {
            base_dir: Some(self.dir.clone()),
            tokenizer_files: self.tokenizer_files.clone(),
            ..ExportOptions::default()
        }
    }

    /// Returns the id of the end-of-text token: the tokenizer's, or else the model's.
    pub fn eos_id(&self) -> Option<u32> {
        self.tokenizer.eos_id().or(self.info.eos_id)
    }

    /// Describes the tokens that the tokenizer puts around a text; `None` without any.
    pub(crate) fn tokens_around(&self) -> Option<String> {
        let (before, after) = self.tokenizer.around();
        let names = |ids: &[u32]| {
            let name = |&id: &u32| self.tokenizer.id_to_token(id).unwrap_or_default();
            ids.iter().map(name).collect::<Vec<_>>().join(" ")
        };
        match (before, after) {
            ([], []) => None,
            (before, []) => Some(format!("tokenizer puts {} before each text", names(before))),
            ([], after) => Some(format!(
                "tokenizer puts {} after each text, but not after a prompt",
                names(after)
            )),
            (before, after) => Some(format!(
                "tokenizer puts {} before each text, and {} after it, but not after a prompt",
                names(before),
                names(after)
            )),
        }
    }

    /// Returns the id of the padding token. If the model does not require a certain one, any token serves: padding is
    /// masked and never learned.
    pub fn pad_id(&self) -> u32 {
        // A padding token may have been added without an embedding.
        let embedded = |id: &u32| (*id as usize) < self.info.vocab_size;
        let own = self.tokenizer.pad_id().filter(embedded);
        let own = own.or(self.eos_id().filter(embedded));
        self.info.pad_id.or(own).unwrap_or(0)
    }

    /// Returns the padding of batches whose examples have at most this length.
    pub fn padding(&self, max_length: usize) -> Padding {
        Padding::from(self.pad_id()).to_multiple_of(self.pad_to_multiple_of, max_length)
    }

    /// Returns the maximum length of an example: the option's, or else 512 tokens or the model's maximum.
    ///
    /// # Errors
    /// If the option is below `least` or above the model's maximum.
    pub fn max_length(&self, option: Option<usize>, least: usize) -> Result<usize, TrainError> {
        let most = self.info.max_length;
        let message = match option {
            None => return Ok(512.min(most)),
            Some(length) if length < least => {
                format!("is {length}, expected at least {least}: there is nothing to learn in less")
            }
            Some(length) if length > most => {
                format!("is {length}, but the model takes {most} tokens at most")
            }
            Some(length) => return Ok(length),
        };
        Err(TrainError::config("max_length", message))
    }
}

/// Model read from files, with an adapter if there is one.
pub(crate) struct Loaded<M> {
    /// Model, with the adapter.
    pub model: M,
    /// Report of the adapter.
    pub adapter: Option<AttachReport>,
    /// Description of the model.
    pub summary: String,
    /// Files of the model's weights, in the state in which they were read.
    pub weight_files: WeightFiles,
}

/// Loads a model, with an adapter if there is one, and describes it.
///
/// # Errors
/// If a file is missing, malformed or not supported, or a weight that cannot be split is larger than the device binds in
/// one buffer.
pub(crate) fn load_model<M: Pretrained>(
    dir: &Path,
    config: &M::Config,
    adapter: Option<&AdapterDir>,
    options: &M::Options,
    device: &Device,
) -> Result<Loaded<M>, TrainError> {
    let for_adapter = adapter.map(|adapter| M::options_for_adapter(config, options, adapter));
    let for_adapter = for_adapter.transpose()?;
    let options = for_adapter.as_ref().unwrap_or(options);
    let (model, report) = M::load_weights(config.clone(), dir, options, device)?;
    let mut loaded = Loaded {
        summary: model.load_summary(&report),
        model,
        adapter: None,
        weight_files: report.weight_files,
    };
    if let Some(adapter) = adapter {
        let options = AdapterLoadOptions::default();
        let adapted = loaded.model.load_opened_adapter(adapter, &options)?;
        let (model, report) = adapted.into_parts();
        loaded.model = model;
        loaded.adapter = Some(report);
    }
    Ok(loaded)
}

/// Warns that an adapter was trained on another base, or refuses it with `strict`.
///
/// # Errors
/// [`LoraError::OtherBase`](lora_core::LoraError::OtherBase) with `strict`, where the bases are known to differ.
pub(crate) fn check_base(
    dir: Option<&Path>,
    report: Option<&AttachReport>,
    strict: bool,
    screen: &Screen,
) -> Result<(), TrainError> {
    let notes = report.iter().flat_map(|report| &report.notes);
    notes.for_each(|note| screen.line(&format!("adapter   {note}")));
    let (Some(dir), Some(report)) = (dir, report) else {
        return Ok(());
    };
    if strict {
        report.check_base(dir)?;
    }
    if let Some(difference) = &report.base_difference {
        let dir = dir.display();
        screen.line(&format!("warning: {dir}: {difference}"));
    }
    Ok(())
}

/// Makes all weights of a model trainable.
///
/// # Errors
/// [`TrainError::Config`] if the device holds a weight in parts, which are frozen.
pub(crate) fn trained_in_full<M: Pretrained>(model: M) -> Result<M, TrainError> {
    if let Some(name) = split_weights(&model).keys().next() {
        let message = format!(
            "trains all weights, but `{name}` is larger than this device binds in one buffer, and its parts are \
             frozen; train an adapter, or take `--device flex` or a GPU with a higher limit"
        );
        return Err(TrainError::config("full", message));
    }
    Ok(model.set_require_grad(true))
}
