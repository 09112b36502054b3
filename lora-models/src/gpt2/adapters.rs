//! LoRA adapters on a GPT-2.

use super::keys::ENDS;
use super::{Gpt2Config, Gpt2LmHead};
use crate::adapter_layers::LayerNames;
use crate::added::{Added, AddedModel};
use crate::error::ModelError;
use crate::prefix::PrefixShape;
use crate::pretrained::FamilyConfig;
use crate::targets::{LoraTargets, NewVocabulary, Vocabulary};
use burn::tensor::{Device, Int, Tensor};
use lora_core::{Architecture, FusedLayout, FusedProjection, LoraConfig, TargetModules};

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

    /// Unties the head where the configuration treats it differently from the token embedding.
    fn prepare(mut self, config: &LoraConfig) -> Result<Self, ModelError> {
        if self.lm_head.is_none() {
            self.lm_head = ENDS.prepared(&self.transformer.wte, config)?;
        }
        Ok(self)
    }

    fn vocabulary(&self) -> Option<Vocabulary> {
        Some(Vocabulary {
            rows: self.config.vocab_size,
            d: self.config.n_embd,
            tied: self.lm_head.is_none(),
        })
    }

    fn vocabulary_values(&self, input: bool) -> Result<Vec<f32>, ModelError> {
        ENDS.values(&self.transformer.wte, self.lm_head.as_ref(), input)
    }

    fn with_vocabulary(mut self, new: NewVocabulary) -> Result<Self, ModelError> {
        let (rows, device) = (new.rows, self.device());
        if let Some(own) = self.vocabulary() {
            let (wte, head) = (&mut self.transformer.wte, &mut self.lm_head);
            ENDS.replace(wte, head, &own, new, &Self::architecture(), &device)?;
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
            query_heads: self.n_head,
            d_keys: self.n_embd,
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
            output_layers: vec![ENDS.head.into()],
            vocabulary: vec![ENDS.embedding.into(), ENDS.head.into()],
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
            self.lm_head = Some(ENDS.untied(&self.transformer.wte, false)?);
        }
        Ok(self)
    }
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
            assert!(ENDS.are_apart(&config), "{saved:?}");
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
