//! Several named adapters on one model, and one of them for each prompt of a generation.

use crate::adapter_layers::ADAPTER_LAYERS_DIR;
use crate::error::ModelError;
use crate::generate::{CausalModel, KvCache};
use crate::model::LoraModel;
use crate::prefix;
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};
use lora_core::file::AdapterDir;
use lora_core::files::Directory;
use lora_core::named::{BatchAdapters, NamedAdapters, adapters_in};
use lora_core::{Adapted, AttachReport, LoraConfig, LoraError};
use std::path::Path;

/// Named adapters on a [`LoraModel`].
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::Device;
/// use lora_core::{LoraConfig, LoraInit, TargetModules};
/// use lora_models::generate::{GenerationConfig, Generator};
/// use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
/// use lora_models::{LoraModel, ModelAdapters};
///
/// let device = Device::flex();
/// let config = Gpt2Config { n_layer: 2, n_embd: 48, n_head: 4, vocab_size: 100, ..Gpt2Config::default() };
/// let base = Gpt2LmHead::init(&config, 0, &device)?;
///
/// let mut adapters = base.clone().named_adapters()?;
/// for (name, slices) in [("left", "c_attn[q,v]"), ("right", "c_attn[k]")] {
///     // In place of training, both factors start at random.
///     let lora = LoraConfig::new(4).with_init(LoraInit::Random).with_targets(TargetModules::names([slices]));
///     adapters.add_trained(name, &base.clone().attach(&lora)?, None)?;
/// }
/// // One batch with a prompt for each adapter, and one for the base alone.
/// let prompts = [vec![4, 8, 15], vec![16], vec![23, 42]];
/// let model = adapters.for_prompts(&[Some("left"), Some("right"), None])?;
/// let texts = Generator::new(&model, GenerationConfig::new(5), &device).generate(&prompts)?;
/// assert_eq!(texts.len(), 3);
/// # Ok::<(), lora_models::ModelError>(())
/// ```
pub trait ModelAdapters {
    /// Model with the adapters.
    type Model: LoraModel;

    /// Adds the adapter of a PEFT directory. If the adapter needs a [prepared](crate::LoraTargets::prepare) model, the
    /// base becomes one, with the same outputs for all other adapters.
    ///
    /// # Errors
    /// As [`NamedAdapters::add`] and [`check_adapter`](crate::LoraTargets::check_adapter).
    fn load(&mut self, name: &str, dir: impl Into<Directory>) -> Result<AttachReport, ModelError>;

    /// Adds the adapter of an opened directory, as [`load`](Self::load).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_opened(&mut self, name: &str, adapter: &AdapterDir)
    -> Result<AttachReport, ModelError>;

    /// Adds all adapters of a directory tree, and returns their names.
    ///
    /// # Errors
    /// As [`adapters_in`] and [`load`](Self::load); adapters before the failing one stay added.
    fn load_tree(&mut self, dir: &Path) -> Result<Vec<String>, ModelError>;

    /// Adds the adapter of a model that was made from the base, such as a newly trained one. `base_model` is as for
    /// [`save_adapter`](crate::SaveAdapter::save_adapter).
    ///
    /// # Errors
    /// As [`NamedAdapters::add_attached`].
    fn add_trained(
        &mut self,
        name: &str,
        adapted: &Adapted<Self::Model>,
        base_model: Option<&str>,
    ) -> Result<(), ModelError>;

    /// Returns the model with an adapter for each prompt of a generation, by name; `None` is the base alone. Each prompt
    /// gets the text that it gets alone with its adapter.
    ///
    /// # Errors
    /// As [`NamedAdapters::assign`].
    fn for_prompts(
        &self,
        names: &[Option<&str>],
    ) -> Result<PromptAdapters<'_, Self::Model>, ModelError>;
}

impl<M: LoraModel> ModelAdapters for NamedAdapters<M> {
    type Model = M;

    fn load(&mut self, name: &str, dir: impl Into<Directory>) -> Result<AttachReport, ModelError> {
        self.load_opened(name, &AdapterDir::open(dir)?)
    }

    fn load_opened(
        &mut self,
        name: &str,
        adapter: &AdapterDir,
    ) -> Result<AttachReport, ModelError> {
        if let Some(prefix) = prefix::beside(adapter.directory())? {
            let message =
                "named adapters must be LoRA; a prefix is supported only with a single adapter";
            return Err(prefix::refused(prefix.path(), message));
        }
        if let Some(layers) = adapter.directory().subdirectory(ADAPTER_LAYERS_DIR) {
            let message = "named adapters must be LoRA; adapter layers are supported only with a single adapter";
            return Err(ModelError::malformed(layers.path(), message));
        }
        let config = adapter.config()?;
        refuse_vocabulary(name, config)?;
        self.map_base(|base| base.prepare(config))?;
        let report = self.add_dir(name, adapter)?.clone();
        if let Err(error) = self.base().check_adapter(&report) {
            self.remove(name)?;
            return Err(error);
        }
        Ok(report)
    }

    fn load_tree(&mut self, dir: &Path) -> Result<Vec<String>, ModelError> {
        let mut names = Vec::new();
        for (name, dir) in adapters_in(dir)? {
            self.load(&name, &dir)?;
            names.push(name);
        }
        Ok(names)
    }

    fn add_trained(
        &mut self,
        name: &str,
        adapted: &Adapted<M>,
        base_model: Option<&str>,
    ) -> Result<(), ModelError> {
        let report = adapted.report();
        refuse_vocabulary(name, &report.config)?;
        let options = adapted.module().peft_options(report, base_model);
        self.map_base(|base| base.prepare(&report.config))?;
        self.add_attached(name, adapted, &options)?;
        Ok(())
    }

    fn for_prompts(&self, names: &[Option<&str>]) -> Result<PromptAdapters<'_, M>, ModelError> {
        Ok(PromptAdapters {
            model: self.model(),
            prompts: names.len(),
            adapters: self.assign(names)?,
        })
    }
}

/// Refuses an adapter that changes the tie between the ends of the base, on which other adapters may depend.
fn refuse_vocabulary(name: &str, config: &LoraConfig) -> Result<(), ModelError> {
    let option = if !config.token_indices.is_empty() {
        "trainable_token_indices"
    } else if config.ensure_weight_tying {
        "ensure_weight_tying"
    } else {
        return Ok(());
    };
    Err(ModelError::Lora(LoraError::UnsupportedTarget {
        module: name.into(),
        message: format!(
            "an adapter with `{option}` cannot be one of several named adapters; load it alone, or merge it into its base"
        ),
    }))
}

/// A model with an adapter for each prompt of a generation; see [`ModelAdapters::for_prompts`].
pub struct PromptAdapters<'a, M> {
    model: &'a M,
    prompts: usize,
    adapters: BatchAdapters,
}

impl<M: CausalModel + Module> CausalModel for PromptAdapters<'_, M> {
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn max_positions(&self) -> usize {
        self.model.max_positions()
    }

    fn rereads_above(&self) -> Vec<usize> {
        self.model.rereads_above()
    }

    fn prompts(&self) -> Option<usize> {
        Some(self.prompts)
    }

    fn cache_layers(&self) -> usize {
        self.model.cache_layers()
    }

    fn next_logits(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        position_ids: Tensor<2, Int>,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        let [rows, _] = ids.dims();
        // Prompts leave the batch as they end, and beams repeat them.
        let prompts: Vec<usize> = (0..rows).map(|row| cache.source(row)).collect();
        let model = self.model;
        let next = || model.next_logits(ids, attention_mask, position_ids, cache);
        self.adapters.select(&prompts).run(next)
    }
}
