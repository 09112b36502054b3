//! An adapter directory, opened once.

use super::adapter::StoredAdapter;
use super::companions::{read_small, read_tokenizer};
use super::config::{AdapterKind, CONFIG_FILE, ConfigFile, PeftOptions, kind_error};
use super::misplaced::not_an_adapter;
use super::tensors::{AdapterTensors, WEIGHTS_FILE};
use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::files::Directory;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::path::Path;
use std::sync::OnceLock;

/// An adapter directory: configuration, kind and the small files beside it are read once, when it is opened; tensors
/// when they are asked for.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::Device;
/// use lora_core::file::{AdapterDir, AdapterKind, PeftOptions};
/// use lora_core::files::Overwrite;
/// use lora_core::{Architecture, LoraConfig, LoraLinearConfig, attach};
///
/// # let temporary = tempfile::tempdir().unwrap();
/// # let path = temporary.path().join("adapter");
/// let base = LoraLinearConfig::new(6, 4).init(&Device::flex());
/// let adapted = attach(base.clone(), &LoraConfig::new(2))?;
/// adapted.save(&path, &PeftOptions::default(), Overwrite::Refuse)?;
///
/// let adapter = AdapterDir::open(&path)?;
/// assert_eq!(*adapter.kind(), AdapterKind::Lora);
/// assert_eq!(adapter.config()?.rank, 2);
/// let adapted = adapter.load(base, &Architecture::default())?;
/// assert!(adapted.module().adapter().is_some());
/// # Ok::<(), lora_core::LoraError>(())
/// ```
#[derive(Debug)]
pub struct AdapterDir {
    dir: Directory,
    file: ConfigFile,
    kind: AdapterKind,
    /// Configuration, if the adapter is LoRA's.
    config: Option<LoraConfig>,
    options: PeftOptions,
    tensors: OnceLock<AdapterTensors>,
}

/// Returns PEFT's task of a class in transformers, which the files of the library `adapters` have in its place.
fn task_of_class(class: &str) -> Option<String> {
    let tasks = [
        ("ForSequenceClassification", "SEQ_CLS"),
        ("ForTokenClassification", "TOKEN_CLS"),
        ("LMHeadModel", "CAUSAL_LM"),
    ];
    let mut tasks = tasks.into_iter();
    let (_, task) = tasks.find(|(suffix, _)| class.ends_with(suffix))?;
    Some(task.into())
}

impl AdapterDir {
    /// Opens a directory: reads its configuration, and that of LoRA strictly. Adapters of any kind can be opened.
    ///
    /// # Errors
    /// [`LoraError::NotAnAdapter`] if it has no configuration; as [`ConfigFile::read`] and, for LoRA, [`ConfigFile::lora`]; if a
    /// companion cannot be read.
    pub fn open(dir: impl Into<Directory>) -> Result<Self, LoraError> {
        let dir = dir.into();
        if !dir.file(CONFIG_FILE).exists() {
            return Err(not_an_adapter(&dir));
        }
        let config = ConfigFile::read(&dir)?;
        Self::with_config(dir, config)
    }

    /// Opens an adapter in memory by the contents of its `adapter_config.json` and `adapter_model.safetensors`, such as those that
    /// a program embeds by `include_bytes!`. Messages use `name` in the place of a path. An adapter with further files is a
    /// [`Directory`] in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(
        name: &str,
        config: impl Into<Cow<'static, [u8]>>,
        weights: impl Into<Cow<'static, [u8]>>,
    ) -> Result<Self, LoraError> {
        let dir = Directory::in_memory(name).with_file(CONFIG_FILE, config);
        Self::open(dir.with_file(WEIGHTS_FILE, weights))
    }

    /// Opens a directory whose configuration is read already.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the reading.
    pub fn with_config(dir: impl Into<Directory>, file: ConfigFile) -> Result<Self, LoraError> {
        let dir = dir.into();
        let (kind, config, mut options) = match file.kind() {
            Some(kind) if kind != AdapterKind::Lora => {
                let name = |key| Some(file.keys().get(key)?.as_str()?.to_string());
                let options = PeftOptions {
                    task_type: name("task_type").or_else(|| task_of_class(&name("model_class")?)),
                    base_model: name("base_model_name_or_path"),
                    ..PeftOptions::default()
                };
                (kind, None, options)
            }
            _ => {
                let (config, options) = file.lora()?;
                (AdapterKind::Lora, Some(config), options)
            }
        };
        options.companions.extend(read_small(&dir)?);
        Ok(Self {
            dir,
            file,
            kind,
            config,
            options,
            tensors: OnceLock::new(),
        })
    }

    /// Path of the directory, or its name if it is in memory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The directory itself.
    pub fn directory(&self) -> &Directory {
        &self.dir
    }

    /// Kind of the adapter.
    pub fn kind(&self) -> &AdapterKind {
        &self.kind
    }

    /// Returns true if it is a prefix: keys and values, embeddings, or activations of virtual tokens.
    pub fn is_prefix(&self) -> bool {
        matches!(
            self.kind,
            AdapterKind::Prefix | AdapterKind::Prompt | AdapterKind::PrefixLayer
        )
    }

    /// Returns true if it is LoRA.
    pub fn is_lora(&self) -> bool {
        self.kind == AdapterKind::Lora
    }

    /// All keys of the configuration, as they are in the file.
    pub fn keys(&self) -> &Map<String, Value> {
        self.file.keys()
    }

    /// Configuration of a LoRA adapter.
    ///
    /// # Errors
    /// [`LoraError::UnsupportedKey`] if it is of another kind.
    pub fn config(&self) -> Result<&LoraConfig, LoraError> {
        let config = self.config.as_ref();
        config.ok_or_else(|| kind_error(self.file.path(), self.kind.name()))
    }

    /// Options that PEFT keeps, with the companions.
    pub fn options(&self) -> &PeftOptions {
        &self.options
    }

    /// PEFT's task, such as `SEQ_CLS`.
    pub fn task_type(&self) -> Option<&str> {
        self.options.task_type.as_deref()
    }

    /// Content of a small file beside the adapter; `None` if there is none of that name. `config.json` has the labels of
    /// a classifier.
    pub fn companion(&self, name: &str) -> Option<&[u8]> {
        let mut companions = self.options.companions.iter();
        companions
            .find(|(other, _)| other == name)
            .map(|(_, bytes)| bytes.as_slice())
    }

    /// Reads the files of the tokenizer beside the adapter, given by name and content; empty without one.
    ///
    /// # Errors
    /// [`LoraError::Io`], or [`LoraError::Malformed`] for a file that is too large, or a link out of the directory.
    pub fn tokenizer_files(&self) -> Result<Vec<(String, Vec<u8>)>, LoraError> {
        read_tokenizer(&self.dir)
    }

    /// Opens the file with the tensors, the first time it is asked for. Their values are read one by one.
    ///
    /// # Errors
    /// [`LoraError::Io`], or [`LoraError::Malformed`] if it breaks its format, a note of this crate is malformed, or it holds
    /// several adapters.
    pub fn tensors(&self) -> Result<&AdapterTensors, LoraError> {
        match self.tensors.get() {
            Some(tensors) => Ok(tensors),
            None => {
                let tensors = AdapterTensors::open_in(&self.dir)?;
                Ok(self.tensors.get_or_init(|| tensors))
            }
        }
    }

    /// Reads the whole adapter, without its model, and the tokenizer beside it.
    ///
    /// # Errors
    /// As [`StoredAdapter::read`].
    pub fn read(&self) -> Result<StoredAdapter, LoraError> {
        self.read_renamed(&[])
    }

    /// Reads the whole adapter with other names, as [`StoredAdapter::read_renamed`] does.
    ///
    /// # Errors
    /// As [`StoredAdapter::read_renamed`].
    pub fn read_renamed(&self, rename: &[(String, String)]) -> Result<StoredAdapter, LoraError> {
        let config = self.config()?.clone();
        let (file, mut options) = (self.tensors()?, self.options.clone());
        options.companions.extend(self.tokenizer_files()?);
        if file.names().is_empty() {
            let message = "holds no tensors: the adapter was saved without its weights, which happens when `state_dict` is \
                           replaced before `save_pretrained`";
            return Err(file.malformed(message.into()));
        }
        StoredAdapter::from_tensors(file, &file.names(), config, options, rename)
    }
}
