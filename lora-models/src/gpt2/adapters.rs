//! LoRA adapters on a GPT-2.

use super::keys::{EMBEDDING, EMBEDDING_MODULE, HEAD, HEAD_MODULE};
use super::{Gpt2Config, Gpt2LmHead};
use crate::adapter_layers::LayerNames;
use crate::added::{Added, AddedModel};
use crate::error::ModelError;
use crate::prefix::PrefixShape;
use crate::pretrained::FamilyConfig;
use crate::targets::{LoraTargets, NewVocabulary, Vocabulary};
use crate::vocabulary::{resized, saves, values_of};
use crate::weights::{check_fits, embedding_of, linear_of, on_host, param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::file::transpose;
use lora_core::{
    Architecture, FusedLayout, FusedProjection, LoraConfig, LoraError, LoraLinear, TargetModules,
    param_id, tied_weight,
};

impl LoraTargets for Gpt2LmHead {
    fn lora_architecture(&self) -> Architecture {
        Self::architecture()
    }

    fn task_type(&self) -> &'static str {
        "CAUSAL_LM"
    }

    fn default_targets(&self) -> TargetModules {
        TargetModules::names(["c_attn"])
    }

    fn device(&self) -> Device {
        self.transformer.wte.weight.lazy_device()
    }

    /// Unties the head where the configuration treats it differently from the token embedding: it adapts or excludes it, or adapts
    /// the embedding, or fully trains one of the two, or each apart.
    ///
    /// The untied head keeps the embedding's base weight, as in PEFT, also after a merge.
    fn prepare(self, config: &LoraConfig) -> Result<Self, ModelError> {
        if self.lm_head.is_some() || !needs_head(config) {
            return Ok(self);
        }
        let saved = |module: &str| {
            config
                .modules_to_save
                .iter()
                .any(|entry| saves(entry, module))
        };
        if config.ensure_weight_tying && saved(HEAD_MODULE) && !saved(EMBEDDING_MODULE) {
            return Err(ModelError::Lora(LoraError::UnsupportedTarget {
                module: HEAD_MODULE.into(),
                message: "is to stay tied to the embedding, which is not trained; name `wte` among the modules to save too"
                    .into(),
            }));
        }
        let mut tokens = config.token_indices.iter();
        let of_head = tokens.any(|tokens| tokens.module.as_deref() == Some(HEAD_MODULE));
        if !config.token_indices.is_empty() && !of_head {
            return Err(ModelError::Lora(LoraError::UnsupportedTarget {
                module: EMBEDDING_MODULE.into(),
                message: "has trained tokens, which a tied output layer follows, and the adapter changes that tie otherwise too; \
                          leave one of the two out"
                    .into(),
            }));
        }
        // A packed weight cannot be trained.
        self.untied(saved(HEAD_MODULE) || of_head)
    }

    fn vocabulary(&self) -> Option<Vocabulary> {
        Some(Vocabulary {
            rows: self.config.vocab_size,
            d: self.config.n_embd,
            tied: self.lm_head.is_none(),
        })
    }

    fn vocabulary_values(&self, input: bool) -> Result<Vec<f32>, ModelError> {
        match &self.lm_head {
            Some(head) if !input => {
                let weight = match head.packed() {
                    Some(packed) => packed.dequantize(),
                    None => head.weight.base(),
                };
                on_host(HEAD, weight.transpose())
            }
            _ => values_of(EMBEDDING, &self.transformer.wte),
        }
    }

    fn with_vocabulary(mut self, new: NewVocabulary) -> Result<Self, ModelError> {
        let (rows, d, device) = (new.rows, self.config.n_embd, self.device());
        let architecture = &Self::architecture();
        let resizes = rows != self.config.vocab_size;
        let values = |own: Option<Vec<f32>>, input: bool| match own {
            None if resizes => Ok(Some(resized(self.vocabulary_values(input)?, d, rows))),
            own => Ok::<_, ModelError>(own),
        };
        let input = values(new.input, true)?;
        let output = match &self.lm_head {
            None => None,
            Some(_) => values(new.output, false)?,
        };
        if let Some(values) = input {
            let shape = [rows, d];
            self.transformer.wte =
                embedding_of(EMBEDDING_MODULE, shape, values, architecture, &device)?;
        }
        if let Some(values) = output {
            let values = transpose(&values, [rows, d]);
            let head = linear_of(HEAD_MODULE, [d, rows], values, architecture, &device)?;
            self.lm_head = Some(head);
        }
        self.config.vocab_size = rows;
        Ok(self)
    }
}

impl AddedModel for Gpt2LmHead {
    fn added(&self) -> &Added {
        &self.transformer.added
    }

    fn added_mut(&mut self) -> &mut Added {
        &mut self.transformer.added
    }

    fn added_shape(&self) -> PrefixShape {
        self.config.added_shape()
    }

    fn layer_names(&self) -> LayerNames {
        self.config.layer_names()
    }

    fn model_class(&self) -> String {
        "GPT2LMHeadModel".into()
    }

    fn token_embeddings(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.transformer.wte.forward(ids)
    }
}

impl Gpt2Config {
    /// Returns the sizes that modules beside the weights depend on.
    pub(crate) fn added_shape(&self) -> PrefixShape {
        PrefixShape {
            layers: self.n_layer,
            heads: self.n_head,
            d_model: self.n_embd,
            positions: self.n_positions,
        }
    }

    /// Returns the names of the layers in the library `adapters`.
    pub(crate) fn layer_names(&self) -> LayerNames {
        LayerNames {
            model_type: "gpt2",
            trunk: "transformer",
            layers: (0..self.n_layer)
                .map(|layer| self.layer_name(layer))
                .collect(),
            places: ["attention_adapters", "output_adapters"],
        }
    }
}

impl Gpt2LmHead {
    /// Returns the output layer, which `all-linear` leaves out, and the fused projection: `c_attn[q,v]` adapts slices
    /// of it.
    pub fn architecture() -> Architecture {
        Architecture {
            output_layers: vec![HEAD_MODULE.into()],
            vocabulary: vec![EMBEDDING_MODULE.into(), HEAD_MODULE.into()],
            fused: vec![FusedProjection {
                module: "attn.c_attn".into(),
                parts: ["q", "k", "v"].map(String::from).to_vec(),
                layout: FusedLayout::PartByPart,
            }],
            conv1d: ["c_attn", "c_proj", "c_fc"].map(String::from).to_vec(),
            ..Architecture::default()
        }
    }

    /// Gives a tied model a separate head, initialized with the transposed token embedding.
    ///
    /// # Errors
    /// [`ModelError::TensorDtype`] if the embedding cannot be read as floats, [`ModelError::TooLargeForDevice`] if the device
    /// cannot bind the head in one buffer.
    pub fn untie_head(self) -> Result<Self, ModelError> {
        self.untied(false)
    }

    /// Gives a tied model a separate head, in f32 where it is asked to be.
    fn untied(mut self, in_f32: bool) -> Result<Self, ModelError> {
        if self.lm_head.is_none() {
            let wte = &self.transformer.wte;
            let device = wte.weight.lazy_device();
            check_fits(HEAD, &wte.weight.lazy_shape(), &device)?;
            let weight = match wte.packed() {
                Some(packed) if in_f32 => {
                    let [vocab, d_model] = packed.shape();
                    let values = on_host(EMBEDDING, packed.dequantize().transpose())?;
                    param(HEAD, TensorData::new(values, [d_model, vocab]), &device)
                }
                Some(packed) => tied_weight(param_id(HEAD), packed),
                None => {
                    let embedding = wte.weight.base();
                    let [vocab, d_model] = embedding.dims();
                    let values = on_host(EMBEDDING, embedding.transpose())?;
                    param(HEAD, TensorData::new(values, [d_model, vocab]), &device)
                }
            };
            self.lm_head = Some(LoraLinear { weight, bias: None });
        }
        Ok(self)
    }
}

/// True if a configuration treats the head differently from the token embedding.
fn needs_head(config: &LoraConfig) -> bool {
    let exclude = config.exclude.as_ref();
    let targets = |path| config.targets.names_module(path);
    let saved = |module: &str| {
        config
            .modules_to_save
            .iter()
            .any(|entry| saves(entry, module))
    };
    let tokens = |name: &str| {
        let mut tokens = config.token_indices.iter();
        let named = tokens.find(|tokens| {
            let module = tokens.module.as_deref().unwrap_or(EMBEDDING_MODULE);
            saves(module, name)
        });
        named.map(|tokens| &tokens.ids)
    };
    let of_head = tokens(HEAD_MODULE);
    targets(HEAD_MODULE)
        || targets(EMBEDDING_MODULE)
        || exclude.is_some_and(|exclude| exclude.names_module(HEAD_MODULE))
        || (saved(EMBEDDING_MODULE) && !config.ensure_weight_tying)
        || (saved(HEAD_MODULE) && !(saved(EMBEDDING_MODULE) && config.ensure_weight_tying))
        // With the same tokens the head follows the embedding.
        || (of_head.is_some() && of_head != tokens(EMBEDDING_MODULE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LoraModel;
    use crate::gpt2::Gpt2Config;
    use lora_core::ExcludeModules;

    fn tied() -> Gpt2LmHead {
        let config = Gpt2Config {
            vocab_size: 30,
            n_positions: 8,
            n_embd: 8,
            n_layer: 1,
            n_head: 2,
            ..Gpt2Config::default()
        };
        Gpt2LmHead::init(&config, 5, &Device::flex()).unwrap()
    }

    fn unties(config: LoraConfig) -> bool {
        let model = tied().attach(&config).unwrap().into_module();
        model.lm_head.is_some()
    }

    #[test]
    fn the_head_is_untied_where_it_is_told_from_the_embedding() {
        let names =
            |names: &[&str]| LoraConfig::new(2).with_targets(TargetModules::names(names.to_vec()));
        let regex = |pattern: &str| LoraConfig::new(2).with_targets(TargetModules::regex(pattern));
        assert!(unties(names(&["c_attn", "lm_head"])));
        assert!(unties(names(&["wte"])));
        assert!(unties(names(&["transformer.wte"])));
        for saved in [
            &["wte"][..],
            &["lm_head"],
            &["wte", "lm_head"],
            &["transformer"],
        ] {
            let config = names(&["c_attn"]).with_modules_to_save(saved.to_vec());
            if saved != ["transformer"] {
                assert!(unties(config.clone()), "{saved:?}");
            }
            assert!(needs_head(&config), "{saved:?}");
        }
        let tied = names(&["c_attn"]).with_modules_to_save(["wte", "lm_head"]);
        assert!(!unties(tied.with_ensure_weight_tying(true)));
        assert!(unties(regex(r"lm_head|.*c_attn")));
        assert!(unties(
            regex(r".*c_attn").with_exclude(ExcludeModules::Names(vec!["lm_head".into()]))
        ));
        assert!(!unties(names(&["c_attn[q,v]", "c_fc"])));
        assert!(!unties(regex(r".*\.c_(attn|fc)")));
        assert!(!unties(LoraConfig::new(2)));
    }

    #[test]
    fn an_untied_head_is_the_embedding_transposed() {
        let model = tied().untie_head().unwrap();
        let head = model.lm_head.as_ref().unwrap().weight.val();
        let embedding = model.transformer.wte.weight.val();
        assert_eq!(head.transpose().into_data(), embedding.into_data());
    }
}
