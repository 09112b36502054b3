//! LoRA adapters on a GPT-2.

use super::Gpt2LmHead;
use super::keys::{EMBEDDING, HEAD};
use crate::error::ModelError;
use crate::prefix::{Prefix, PrefixModel, PrefixShape};
use crate::targets::LoraTargets;
use crate::weights::{check_fits, on_host, param};
use burn::tensor::{Device, TensorData};
use lora_core::{
    Architecture, FusedLayout, FusedProjection, LoraConfig, LoraLinear, TargetModules, param_id,
    tied_weight,
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

    /// Unties the head where the configuration adapts or excludes it, or adapts the token embedding.
    ///
    /// The untied head keeps the embedding's base weight, as in PEFT, also after a merge.
    fn prepare(self, config: &LoraConfig) -> Result<Self, ModelError> {
        if self.lm_head.is_none() && needs_head(config) {
            self.untie_head()
        } else {
            Ok(self)
        }
    }
}

impl PrefixModel for Gpt2LmHead {
    fn prefix_slot(&mut self) -> Option<(&mut Option<Prefix>, PrefixShape)> {
        let shape = PrefixShape {
            layers: self.config.n_layer,
            heads: self.config.n_head,
            d_model: self.config.n_embd,
            positions: self.config.n_positions,
        };
        Some((&mut self.transformer.prefix, shape))
    }

    fn prefix(&self) -> Option<&Prefix> {
        self.transformer.prefix.as_ref()
    }
}

impl Gpt2LmHead {
    /// Returns the output layer, which `all-linear` leaves out, and the fused projection: `c_attn[q,v]` adapts slices
    /// of it.
    pub fn architecture() -> Architecture {
        Architecture {
            output_layers: vec!["lm_head".into()],
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
    pub fn untie_head(mut self) -> Result<Self, ModelError> {
        if self.lm_head.is_none() {
            let wte = &self.transformer.wte;
            let device = wte.weight.lazy_device();
            check_fits(HEAD, &wte.weight.lazy_shape(), &device)?;
            let weight = match wte.packed() {
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
    targets("lm_head")
        || targets("transformer.wte")
        || exclude.is_some_and(|exclude| exclude.names_module("lm_head"))
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
