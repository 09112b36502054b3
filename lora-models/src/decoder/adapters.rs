//! LoRA adapters on a decoder.

use super::config::DecoderConfig;
use super::model::DecoderLm;
use super::names::{ENDS, architecture};
use crate::adapter_layers::LayerNames;
use crate::added::{Added, AddedModel};
use crate::error::ModelError;
use crate::prefix::PrefixShape;
use crate::pretrained::FamilyConfig;
use crate::targets::{LoraTargets, NewVocabulary, Vocabulary};
use burn::tensor::{Device, Int, Tensor};
use lora_core::{Architecture, LoraConfig, TargetModules};

impl LoraTargets for DecoderLm {
    fn lora_architecture(&self) -> Architecture {
        architecture(self.config())
    }

    fn task_type(&self) -> &'static str {
        "CAUSAL_LM"
    }

    fn default_targets(&self) -> TargetModules {
        let targets = self.config().family.default_targets();
        TargetModules::names(targets.to_vec())
    }

    fn device(&self) -> Device {
        self.model.embed_tokens.weight.lazy_device()
    }

    /// Unties the head where the configuration treats it differently from the token embedding.
    fn prepare(mut self, config: &LoraConfig) -> Result<Self, ModelError> {
        if self.lm_head.is_none() {
            self.lm_head = ENDS.prepared(&self.model.embed_tokens, config)?;
        }
        Ok(self)
    }

    fn vocabulary(&self) -> Option<Vocabulary> {
        Some(Vocabulary {
            rows: self.config().vocab_size,
            d: self.config().hidden_size,
            tied: self.lm_head.is_none(),
        })
    }

    fn vocabulary_values(&self, input: bool) -> Result<Vec<f32>, ModelError> {
        ENDS.values(&self.model.embed_tokens, self.lm_head.as_ref(), input)
    }

    fn with_vocabulary(mut self, new: NewVocabulary) -> Result<Self, ModelError> {
        let (rows, device) = (new.rows, self.device());
        if let Some(own) = self.vocabulary() {
            let architecture = &self.lora_architecture();
            let (embedding, head) = (&mut self.model.embed_tokens, &mut self.lm_head);
            ENDS.replace(embedding, head, &own, new, architecture, &device)?;
        }
        self.model.config.vocab_size = rows;
        Ok(self)
    }
}

impl AddedModel for DecoderLm {
    fn added(&self) -> &Added {
        &self.model.added
    }

    fn added_mut(&mut self) -> &mut Added {
        &mut self.model.added
    }

    fn added_shape(&self) -> PrefixShape {
        self.config().added_shape()
    }

    fn layer_names(&self) -> LayerNames {
        self.config().layer_names()
    }

    fn model_class(&self) -> String {
        self.config().family.class().into()
    }

    fn token_embeddings(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.model.embedded(ids)
    }
}

impl DecoderConfig {
    /// Returns the sizes that modules beside the weights depend on.
    pub(crate) fn added_shape(&self) -> PrefixShape {
        PrefixShape {
            layers: self.layers.len(),
            heads: self.num_key_value_heads,
            query_heads: self.num_attention_heads,
            d_keys: self.key_width(),
            d_model: self.hidden_size,
            positions: self.max_position_embeddings,
        }
    }

    /// Returns the names of the layers in the library `adapters`.
    pub(crate) fn layer_names(&self) -> LayerNames {
        LayerNames {
            model_type: self.family.model_type(),
            trunk: "model",
            layers: (0..self.layers.len())
                .map(|layer| self.layer_name(layer))
                .collect(),
            places: ["attention_adapters", "output_adapters"],
        }
    }
}
