//! Embeddings, layers and output layer of GPT-2.

use super::Gpt2Config;
use super::block::Block;
use crate::added::{Added, LayerAdded};
use crate::generate::KvCache;
use crate::lm::{Ends, Past, TextMask, extend_by_prefix, padding_bias};
use crate::prefix::{PrefixKind, PrefixLayer};
use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use lora_core::ops::Segments;
use lora_core::{Dropout, LayerNorm, LoraEmbedding, LoraLinear};

/// GPT-2 without its output layer.
#[derive(Module, Debug)]
pub struct Gpt2 {
    /// Token embedding, `[vocab_size, d_model]`.
    pub wte: LoraEmbedding,
    /// Position embedding, `[n_positions, d_model]`.
    pub wpe: Embedding,
    /// Dropout on the embeddings.
    pub drop: Dropout,
    /// Layers.
    pub h: Vec<Block>,
    /// Layer norm after the last layer.
    pub ln_f: LayerNorm,
    /// Virtual tokens before every text, and adapter layers.
    pub added: Added,
}

/// GPT-2 with its output layer (Radford et al. 2019).
///
/// The fields have the names of the modules in transformers, so that paths agree.
#[derive(Module, Debug)]
pub struct Gpt2LmHead {
    /// Embeddings and layers.
    pub transformer: Gpt2,
    /// Output layer, `[d_model, vocab_size]`; `None` if it is tied to the token embedding.
    pub lm_head: Option<LoraLinear>,
    #[module(skip)]
    pub(super) config: Gpt2Config,
}

impl Gpt2 {
    /// Returns the hidden states of every token, after the last layer norm.
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
    /// - returns `[batch, seq, d_model]`; the values at padding are unspecified
    ///
    /// # Panics
    /// If the shapes do not fit, or virtual tokens and tokens exceed the positions.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        position_ids: Option<Tensor<2, Int>>,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let [_, seq] = ids.dims();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let mut x = self.embed(ids, position_ids, past);
        let mask = &self.text_mask(past + seq, attention_mask);
        for (layer, block) in self.h.iter().enumerate() {
            let past = cache.as_deref_mut().map(|cache| Past { cache, layer });
            x = block.forward(x, mask, past, self.layer_added(layer, mask));
        }
        if let Some(cache) = cache {
            cache.advance(seq);
        }
        self.ln_f.forward(x)
    }

    /// Embeds texts that are packed into one row. No text attends to another, so that each has the hidden states of a row
    /// of its own, without padding.
    ///
    /// # Panics
    /// If the texts do not fill the row, a text has more tokens than the model has positions, or the model has a prefix.
    pub(super) fn embed_packed(&self, ids: Tensor<2, Int>, segments: &Segments) -> Tensor<3> {
        let (lengths, positions) = (segments.lengths(), self.positions());
        assert!(
            self.added.prefix.is_none(),
            "packed texts cannot be used with a prefix: each text would need its virtual tokens before it"
        );
        assert!(
            ids.dims() == [1, segments.tokens()],
            "ids {:?} of packed texts of {lengths:?} tokens",
            ids.dims()
        );
        assert!(
            lengths.iter().all(|&length| length <= positions),
            "packed texts of {lengths:?} tokens for {positions} positions"
        );
        let positions: Vec<i64> = segments.positions().map(|index| index as i64).collect();
        let positions = TensorData::new(positions, ids.dims());
        let positions = Tensor::from_data(positions, &ids.device());
        self.embed(ids, Some(positions), 0)
    }

    /// Embeds tokens at their positions.
    pub(crate) fn embed(
        &self,
        ids: Tensor<2, Int>,
        position_ids: Option<Tensor<2, Int>>,
        past: usize,
    ) -> Tensor<3> {
        let [_, seq] = ids.dims();
        let device = ids.device();
        let virtual_tokens = self.virtual_tokens();
        let position_ids = match position_ids {
            Some(ids) if virtual_tokens == 0 => ids,
            Some(ids) => ids.add_scalar(virtual_tokens as i64),
            None => {
                let (first, positions) = (virtual_tokens + past, self.positions());
                assert!(
                    first + seq <= positions,
                    "{virtual_tokens} virtual tokens, {past} in the cache and {seq} new are more than the \
                     {positions} positions"
                );
                let ids = Tensor::<1, Int>::arange(first as i64..(first + seq) as i64, &device);
                ids.unsqueeze() // [seq] -> [1, seq]
            }
        };
        let x = self.wte.forward(ids) + self.wpe.forward(position_ids);
        self.drop.forward(x)
    }

    /// Applies block `index`, with the virtual tokens of the prefix.
    pub(crate) fn block(&self, index: usize, x: Tensor<3>, mask: &TextMask) -> Tensor<3> {
        self.h[index].forward(x, mask, None, self.layer_added(index, mask))
    }

    /// Returns what is beside a layer.
    fn layer_added<'a>(&'a self, index: usize, mask: &'a TextMask) -> LayerAdded<'a> {
        LayerAdded {
            prefix: mask.virtual_tokens.get(index),
            adapters: self.added.layer(index),
        }
    }

    /// Computes keys and values of the virtual tokens in all layers; none without virtual tokens. They depend on no text.
    fn virtual_layers(&self) -> Vec<PrefixLayer> {
        let Some(prefix) = &self.added.prefix else {
            return Vec::new();
        };
        let layers = self.h.iter().enumerate();
        match prefix.kind() {
            PrefixKind::KeysAndValues => layers.map(|(index, _)| prefix.layer(index)).collect(),
            PrefixKind::Activations => layers
                .map(|(index, block)| block.keys_and_values(prefix.states(index)))
                .collect(),
            PrefixKind::Embeddings => {
                let positions = 0..prefix.tokens() as i64;
                let positions = Tensor::<1, Int>::arange(positions, &self.wte.weight.lazy_device());
                let x = prefix.states(0) + self.wpe.forward(positions.unsqueeze());
                let mask = TextMask::default();
                PrefixLayer::through(
                    &self.h,
                    self.drop.forward(x),
                    |block, x| block.keys_and_values(x),
                    |index, block, x| block.forward(x, &mask, None, self.layer_added(index, &mask)),
                )
            }
        }
    }

    /// Builds the attention mask over `keys` positions, shared by all layers.
    pub(crate) fn text_mask(
        &self,
        keys: usize,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> TextMask {
        let virtual_tokens = self.virtual_tokens();
        let padding = padding_bias(keys, attention_mask);
        TextMask {
            padding: padding.map(|mask| extend_by_prefix(mask, virtual_tokens)),
            segments: None,
            virtual_tokens: self.virtual_layers(),
        }
    }

    /// Number of position embeddings.
    pub(super) fn positions(&self) -> usize {
        self.wpe.weight.lazy_shape()[0]
    }

    /// Number of virtual tokens of the prefix.
    pub(super) fn virtual_tokens(&self) -> usize {
        self.added.virtual_tokens()
    }
}

impl Gpt2LmHead {
    /// Returns the configuration.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// Projects hidden states to the vocabulary.
    ///
    /// A tied output layer uses the base weight of the embedding: as in PEFT, an adapter on the embedding has no effect
    /// here.
    ///
    /// # Shapes
    /// - `hidden`: `[..., d_model]`
    /// - returns `[..., vocab_size]`
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        Ends::logits(&self.transformer.wte, self.lm_head.as_ref(), hidden)
    }

    /// Returns the logits of every token.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - `attention_mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, seq, vocab_size]`
    ///
    /// # Panics
    /// If the shapes do not fit, or there are more tokens than positions.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        self.logits(self.transformer.forward(ids, attention_mask, None, None))
    }
}
