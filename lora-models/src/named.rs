//! Several adapters on one model: read from files, and a different one for each prompt of a generation.

use crate::generate::{CausalModel, Generated, GenerationConfig, KvCache, generate_with};
use crate::{LoraModel, ModelError, prefix};
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::named::{BatchAdapters, NamedAdapters, adapters_in};
use lora_core::peft;
use lora_core::{Adapted, AttachReport};
use std::path::Path;

/// Named adapters on a [`LoraModel`]: what [`LoraModel::load_adapter`] does to one, for each of them.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::Device;
/// use lora_core::{LoraConfig, LoraInit, TargetModules};
/// use lora_models::generate::GenerationConfig;
/// use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
/// use lora_models::{LoraModel, ModelAdapters, generate_each};
///
/// let device = Device::flex();
/// let config = Gpt2Config { n_layer: 2, n_embd: 48, n_head: 4, vocab_size: 100, ..Gpt2Config::default() };
/// let base = Gpt2LmHead::init(&config, 0, &device)?;
///
/// let mut adapters = base.clone().named_adapters()?;
/// for (name, slices) in [("left", "c_attn[q,v]"), ("right", "c_attn[k]")] {
///     // Instead of training, both factors start at random.
///     let lora = LoraConfig::new(4).with_init(LoraInit::Random).with_targets(TargetModules::names([slices]));
///     let (model, report) = base.clone().attach(&lora)?;
///     adapters.add_trained(name, &model, &report, None)?;
/// }
/// // A prompt for each, and one for the base alone, in one batch.
/// let prompts = [vec![4, 8, 15], vec![16], vec![23, 42]];
/// let names = [Some("left"), Some("right"), None];
/// let texts = generate_each(&adapters, &names, &prompts, &GenerationConfig::new(5), &device, |_, _| {})?;
/// assert_eq!(texts.len(), 3);
/// # Ok::<(), lora_models::ModelError>(())
/// ```
pub trait ModelAdapters {
    /// The model.
    type Model: LoraModel;

    /// Adds the adapter of a PEFT directory. Where it needs a model made ready for it
    /// ([`LoraModel::prepare`]), the base becomes that; it computes the same for all others.
    ///
    /// # Errors
    /// As [`NamedAdapters::add`] and [`LoraModel::check_adapter`].
    fn load(&mut self, name: &str, dir: &Path) -> Result<AttachReport, ModelError>;

    /// Adds all adapters of a directory tree, and returns their names.
    ///
    /// # Errors
    /// As [`adapters_in`] and [`load`](Self::load); those that came before the one that failed are there then.
    fn load_tree(&mut self, dir: &Path) -> Result<Vec<String>, ModelError>;

    /// Adds the adapter of a model that was made from the base, such as one that was just trained. `base_model` is as for
    /// [`LoraModel::save_adapter`].
    ///
    /// # Errors
    /// As [`NamedAdapters::add_attached`].
    fn add_trained(
        &mut self,
        name: &str,
        model: &Self::Model,
        report: &AttachReport,
        base_model: Option<&str>,
    ) -> Result<(), ModelError>;
}

impl<M: LoraModel> ModelAdapters for NamedAdapters<M> {
    type Model = M;

    fn load(&mut self, name: &str, dir: &Path) -> Result<AttachReport, ModelError> {
        if let Some(prefix) = prefix::beside(dir)? {
            return Err(prefix::refused_by_name(&prefix));
        }
        let config = peft::read_config(dir)?;
        self.map_base(|base| base.prepare(&config))?;
        let report = self.add(name, dir)?.clone();
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
        model: &M,
        report: &AttachReport,
        base_model: Option<&str>,
    ) -> Result<(), ModelError> {
        let options = model.peft_options(report, base_model);
        self.map_base(|base| base.prepare(&report.config))?;
        let adapted = Adapted::from_parts(model.clone(), report.clone());
        self.add_attached(name, &adapted, &options)?;
        Ok(())
    }
}

/// Continues prompts, each with its own adapter by name; `None` is the base alone. What comes is what
/// [`generate_with`] gives for each prompt with its adapter active.
///
/// # Errors
/// As [`generate_with`] and [`NamedAdapters::assign`], and where there are not as many names as prompts.
pub fn generate_each<M: CausalModel + Module>(
    adapters: &NamedAdapters<M>,
    names: &[Option<&str>],
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    device: &Device,
    on_token: impl FnMut(usize, u32),
) -> Result<Vec<Generated>, ModelError> {
    if names.len() != prompts.len() {
        return Err(ModelError::Generation {
            message: format!(
                "there are {} prompts and {} adapters for them",
                prompts.len(),
                names.len()
            ),
        });
    }
    let model = EachOwn {
        model: adapters.model(),
        adapters: adapters.assign(names)?,
    };
    generate_with(&model, prompts, config, device, on_token)
}

/// A model in which each prompt of a generation has its own adapter.
struct EachOwn<'a, M> {
    model: &'a M,
    adapters: BatchAdapters,
}

impl<M: CausalModel> CausalModel for EachOwn<'_, M> {
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn max_positions(&self) -> usize {
        self.model.max_positions()
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
