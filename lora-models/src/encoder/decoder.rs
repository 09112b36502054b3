//! Configuration of a decoder whose hidden states a head reads.

use crate::adapter_layers::LayerNames;
use crate::decoder::DecoderConfig;
use crate::gpt2::Gpt2Config;
use crate::prefix::PrefixShape;
use crate::pretrained::{FamilyConfig, ModelSizes};
use serde_json::{Map, Value};

/// Configuration of a decoder with a head in place of its output layer.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // A program has a few of them.
pub enum HeadedDecoder {
    /// Configuration of a GPT-2.
    Gpt2(Gpt2Config),
    /// Configuration of a decoder of the Llama kind.
    Decoder(DecoderConfig),
}

/// Evaluates an expression with the configuration of either kind.
macro_rules! either {
    ($decoder:expr, $config:ident => $body:expr) => {
        match $decoder {
            HeadedDecoder::Gpt2($config) => $body,
            HeadedDecoder::Decoder($config) => $body,
        }
    };
}

impl HeadedDecoder {
    /// Returns the padding token, which a head on texts tells from their tokens.
    pub fn pad_token_id(&self) -> Option<u32> {
        either!(self, config => config.pad_token_id)
    }

    /// Sets the padding token of a language model that has none to its end-of-text token: a new head must tell padding from text,
    /// and the classes of transformers take no batch without such a token.
    pub(super) fn set_missing_padding(&mut self) {
        if self.pad_token_id().is_some() {
            return;
        }
        let (ends, vocabulary) =
            either!(self, config => (config.eos_token_ids.first().copied(), config.vocab_size));
        let end = ends.filter(|&token| (token as usize) < vocabulary);
        either!(self, config => config.pad_token_id = end);
    }

    /// True if the output layer of the pretraining is the token embedding.
    pub(crate) fn ties_embeddings(&self) -> bool {
        either!(self, config => config.tie_word_embeddings)
    }

    /// Returns the object of `config.json`.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        either!(self, config => config.to_json())
    }

    /// Sets the number of tokens.
    pub(crate) fn set_vocabulary(&mut self, tokens: usize) {
        either!(self, config => config.vocab_size = tokens);
    }

    /// Returns the sizes of the language model.
    pub(crate) fn sizes(&self) -> ModelSizes {
        either!(self, config => config.sizes())
    }

    /// Names the modules that are usually adapted; there is no output layer.
    pub(crate) fn usual_targets(&self) -> Vec<&'static str> {
        let mut targets = either!(self, config => config.usual_targets());
        targets.retain(|target| *target != "lm_head");
        targets
    }

    /// Returns the name of a layer.
    pub(crate) fn layer_name(&self, layer: usize) -> String {
        either!(self, config => config.layer_name(layer))
    }

    /// Replaces the number of layers.
    pub(crate) fn set_layers(&mut self, layers: usize) {
        either!(self, config => config.set_layers(layers));
    }

    /// Sets every dropout probability to 0.
    pub(crate) fn disable_dropout(&mut self) {
        either!(self, config => config.disable_dropout());
    }

    /// Returns the sizes that modules beside the weights depend on.
    pub(crate) fn added_shape(&self) -> PrefixShape {
        either!(self, config => config.added_shape())
    }

    /// Returns the names of the layers in the library `adapters`.
    pub(crate) fn layer_names(&self) -> LayerNames {
        either!(self, config => config.layer_names())
    }
}
