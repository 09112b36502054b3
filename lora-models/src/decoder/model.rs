//! Embeddings, layers and output layer of a decoder.

use super::block::Layer;
use super::config::DecoderConfig;
use super::rope::Angles;
use super::shared::DecoderShared;
use crate::added::{Added, LayerAdded};
use crate::generate::KvCache;
use crate::lm::{Ends, Past, TextMask, extend_by_prefix, padding_bias};
use crate::prefix::{PrefixKind, PrefixLayer};
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::ops::Segments;
use lora_core::{LoraEmbedding, LoraLinear, RmsNorm};
use std::ops::Range;

/// Decoder without its output layer.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Token embedding, `[vocab_size, hidden_size]`.
    pub embed_tokens: LoraEmbedding,
    /// Layers.
    pub layers: Vec<Layer>,
    /// Norm after the last layer.
    pub norm: RmsNorm,
    /// Virtual tokens before every text, and adapter layers.
    pub added: Added,
    #[module(skip)]
    pub(super) config: DecoderConfig,
}

/// Decoder with its output layer.
///
/// The fields have the names of the modules in transformers, with the exceptions in
/// [`lora_architecture`](crate::LoraTargets::lora_architecture).
#[derive(Module, Debug)]
pub struct DecoderLm {
    /// Embeddings and layers.
    pub model: Decoder,
    /// Output layer, `[hidden_size, vocab_size]`; `None` if it is tied to the token embedding.
    pub lm_head: Option<LoraLinear>,
}

/// Positions of the tokens of a batch.
#[allow(clippy::large_enum_variant)] // A batch has one.
enum Positions {
    /// The same in every row.
    Shared(Range<usize>),
    /// Positions within packed texts.
    Packed(Segments),
    /// Given by the caller.
    Given(Tensor<2, Int>),
}

impl Decoder {
    /// Returns the hidden states of every token, after the last norm.
    ///
    /// Without position ids, a token's position is its index in the row after the tokens in the cache, as in
    /// transformers; rows with padding on the left need position ids. A [prefix](crate::prefix) shifts all positions by
    /// its number of virtual tokens; cache and attention mask do not count them.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - `attention_mask`: `[batch, past + seq]`, true for a token, false for padding; `past` is
    ///   the length of the cache
    /// - `position_ids`: `[batch or 1, seq]`
    /// - returns `[batch, seq, hidden_size]`; the values at padding are unspecified
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        position_ids: Option<Tensor<2, Int>>,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let [_, seq] = ids.dims();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let shared = &self.shared(past, seq, attention_mask, position_ids, &ids.device());
        let mut x = self.embed(ids);
        for (layer, block) in self.layers.iter().enumerate() {
            let past = cache.as_deref_mut().map(|cache| Past { cache, layer });
            x = block.forward(x, shared, past, self.layer_added(layer, shared));
        }
        if let Some(cache) = cache {
            cache.advance(seq);
        }
        self.norm.forward(x)
    }

    /// Embeds tokens.
    pub(crate) fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.scaled(self.embed_tokens.forward(ids))
    }

    /// Applies the factor on embeddings.
    fn scaled(&self, x: Tensor<3>) -> Tensor<3> {
        match self.config.multipliers.embedding {
            1.0 => x,
            factor => x * factor,
        }
    }

    /// Applies the factor on trained embeddings, which stand in the place of the embedding layer's output in transformers.
    fn scaled_prompt(&self, x: Tensor<3>) -> Tensor<3> {
        if self.config.family.embeds_scaled() {
            x
        } else {
            self.scaled(x)
        }
    }

    /// Returns the output of the embedding layer of transformers.
    pub(super) fn embedded(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let x = self.embed_tokens.forward(ids);
        if self.config.family.embeds_scaled() {
            self.scaled(x)
        } else {
            x
        }
    }

    /// Builds what all layers share, for `seq` tokens after `past` ones.
    pub(crate) fn shared(
        &self,
        past: usize,
        seq: usize,
        attention_mask: Option<Tensor<2, Bool>>,
        position_ids: Option<Tensor<2, Int>>,
        device: &Device,
    ) -> DecoderShared {
        let virtual_tokens = self.virtual_tokens();
        let padding = padding_bias(past + seq, attention_mask);
        let positions = match position_ids {
            Some(ids) => Positions::Given(ids),
            None => Positions::Shared(past..past + seq),
        };
        DecoderShared {
            mask: TextMask {
                padding: padding.map(|mask| extend_by_prefix(mask, virtual_tokens)),
                segments: None,
                virtual_tokens: self.virtual_layers(),
            },
            angles: self.angles(&positions, virtual_tokens, device),
        }
    }

    /// Builds what all layers share for texts that are packed into one row. No text attends to another, so that each has the
    /// hidden states of a row of its own, without padding.
    ///
    /// # Panics
    /// If the texts do not fill the row, or the model has a prefix.
    pub(crate) fn shared_within(
        &self,
        segments: &Segments,
        seq: usize,
        device: &Device,
    ) -> DecoderShared {
        assert!(
            self.added.prefix.is_none(),
            "packed texts cannot be used with a prefix: each text would need its virtual tokens before it"
        );
        assert!(
            seq == segments.tokens(),
            "{seq} ids of packed texts of {:?} tokens",
            segments.lengths()
        );
        DecoderShared {
            mask: TextMask::within(segments),
            angles: self.angles(&Positions::Packed(segments.clone()), 0, device),
        }
    }

    /// Builds what all layers share from that of the same texts: their mask, and the angles of their positions.
    pub(crate) fn shared_again(&self, before: &DecoderShared) -> DecoderShared {
        let mut shared = before.clone();
        shared.mask.virtual_tokens = self.virtual_layers();
        shared
    }

    /// Computes the angles of positions, shifted by a number of virtual tokens.
    fn angles(&self, positions: &Positions, shift: usize, device: &Device) -> Vec<Angles> {
        let (mut values, shape): (Vec<i64>, [usize; 2]) = match positions {
            Positions::Shared(range) => {
                let values = range.clone().map(|position| position as i64);
                (values.collect(), [1, range.len()])
            }
            Positions::Packed(segments) => {
                let values = segments.positions().map(|position| position as i64);
                (values.collect(), [1, segments.tokens()])
            }
            Positions::Given(ids) => {
                let values = ids.clone().into_data();
                (values.iter::<i64>().collect(), ids.dims())
            }
        };
        values.iter_mut().for_each(|value| *value += shift as i64);
        let ropes = self.config.ropes.iter();
        ropes
            .map(|rope| rope.angles(&values, shape, device))
            .collect()
    }

    /// Applies layer `index`, with the virtual tokens of the prefix.
    pub(crate) fn layer(&self, index: usize, x: Tensor<3>, shared: &DecoderShared) -> Tensor<3> {
        self.layers[index].forward(x, shared, None, self.layer_added(index, shared))
    }

    /// Returns what is beside a layer.
    fn layer_added<'a>(&'a self, index: usize, shared: &'a DecoderShared) -> LayerAdded<'a> {
        LayerAdded {
            prefix: shared.mask.virtual_tokens.get(index),
            adapters: self.added.layer(index),
        }
    }

    /// Computes keys and values of the virtual tokens in all layers; none without virtual tokens. They depend on no text.
    fn virtual_layers(&self) -> Vec<PrefixLayer> {
        let Some(prefix) = &self.added.prefix else {
            return Vec::new();
        };
        let layers = self.layers.iter().enumerate();
        if prefix.kind() == PrefixKind::KeysAndValues {
            return layers.map(|(index, _)| prefix.layer(index)).collect();
        }
        let device = &self.embed_tokens.weight.lazy_device();
        let positions = Positions::Shared(0..prefix.tokens());
        let shared = DecoderShared {
            mask: TextMask::default(),
            angles: self.angles(&positions, 0, device),
        };
        if prefix.kind() == PrefixKind::Activations {
            return layers
                .map(|(index, layer)| layer.keys_and_values(prefix.states(index), &shared.angles))
                .collect();
        }
        PrefixLayer::through(
            &self.layers,
            self.scaled_prompt(prefix.states(0)),
            |layer, x| layer.keys_and_values(x, &shared.angles),
            |index, layer, x| layer.forward(x, &shared, None, self.layer_added(index, &shared)),
        )
    }

    /// Number of virtual tokens of the prefix.
    pub(crate) fn virtual_tokens(&self) -> usize {
        self.added.virtual_tokens()
    }
}

impl DecoderLm {
    /// Returns the configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.model.config
    }

    /// Projects hidden states to the vocabulary.
    ///
    /// A tied output layer uses the base weight of the embedding: as in PEFT, an adapter on the embedding has no effect
    /// here.
    ///
    /// # Shapes
    /// - `hidden`: `[..., hidden_size]`
    /// - returns `[..., vocab_size]`
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        let hidden = self.before_head(hidden);
        let logits = Ends::logits(&self.model.embed_tokens, self.lm_head.as_ref(), hidden);
        match self.config().logit_cap {
            None => logits,
            Some(cap) => (logits / cap).tanh() * cap,
        }
    }

    /// Divides hidden states by the divisor of the logits.
    pub(super) fn before_head<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        match self.config().multipliers.logits {
            1.0 => hidden,
            divisor => hidden / divisor,
        }
    }

    /// Returns the logits of every token.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - `attention_mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, seq, vocab_size]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        self.logits(self.model.forward(ids, attention_mask, None, None))
    }
}
