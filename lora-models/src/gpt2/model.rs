//! The model: embeddings, blocks, and the projection to the vocabulary.

use super::Gpt2Config;
use super::attention::Past;
use super::block::Block;
use super::mask::{Visible, hidden_padding, see_before};
use crate::generate::{CausalModel, KvCache};
use crate::prefix::Prefix;
use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Bool, Int, Tensor, TensorData, module::linear};
use lora_core::ops::Segments;
use lora_core::{Dropout, LayerNorm, LoraEmbedding, LoraLinear};

/// The model without the projection to the vocabulary.
#[derive(Module, Debug)]
pub struct Gpt2 {
    /// Of tokens: `[vocab_size, d_model]`.
    pub wte: LoraEmbedding,
    /// Of positions: `[n_positions, d_model]`.
    pub wpe: Embedding,
    /// On the embeddings.
    pub drop: Dropout,
    /// The layers.
    pub h: Vec<Block>,
    /// After the last layer.
    pub ln_f: LayerNorm,
    /// Keys and values of virtual tokens before every text.
    pub prefix: Option<Prefix>,
}

/// GPT-2 with its projection to the vocabulary (Radford et al. 2019).
///
/// The fields are named as the modules are in Python, so that a path here is the path there.
#[derive(Module, Debug)]
pub struct Gpt2LmHead {
    /// Embeddings and blocks.
    pub transformer: Gpt2,
    /// `[d_model, vocab_size]`; `None` where it is tied: the token embedding, transposed.
    pub lm_head: Option<LoraLinear>,
    #[module(skip)]
    pub(super) config: Gpt2Config,
}

impl Gpt2 {
    /// The hidden states of every token, after the last layer norm.
    ///
    /// Without position ids a token's position is its place in the row, the tokens in the cache
    /// counted, as in transformers: for rows that are padded on the left, give them. With a
    /// [prefix](crate::prefix) a token stands that many positions later, whether they are given or not;
    /// the cache and the attention mask know nothing of it.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - `attention_mask`: `[batch, past + seq]`, true for a token, false for padding; `past` is
    ///   the length of the cache
    /// - `position_ids`: `[batch or 1, seq]`
    /// - returns `[batch, seq, d_model]`; what it holds for padding means nothing
    ///
    /// # Panics
    /// If the shapes do not fit, or there are more tokens, virtual ones among them, than positions.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        position_ids: Option<Tensor<2, Int>>,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let [_, seq] = ids.dims();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let x = self.embed(ids, position_ids, past);
        self.layers(x, &self.visible(past + seq, attention_mask), cache)
    }

    /// The hidden states after all layers, of what goes into the first.
    fn layers(
        &self,
        mut x: Tensor<3>,
        visible: &Visible,
        mut cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let [_, seq, _] = x.dims();
        for (layer, block) in self.h.iter().enumerate() {
            let past = cache.as_deref_mut().map(|cache| Past { cache, layer });
            let prefix = self.prefix.as_ref().map(|prefix| prefix.layer(layer));
            x = block.forward(x, visible, past, prefix.as_ref());
        }
        if let Some(cache) = cache {
            cache.advance(seq);
        }
        self.ln_f.forward(x)
    }

    /// The hidden states of texts that lie one behind another in one row, of which none sees another: those that each would
    /// have in a row of its own, and no work for padding.
    ///
    /// # Shapes
    /// - `ids`: `[1, tokens]`
    /// - returns `[1, tokens, d_model]`
    ///
    /// # Panics
    /// If the texts do not fill the row, one has more tokens than there are positions, or the model has a
    /// [prefix](crate::prefix).
    pub fn forward_packed(&self, ids: Tensor<2, Int>, segments: &Segments) -> Tensor<3> {
        let x = self.embed_packed(ids, segments);
        self.layers(x, &Visible::within(segments), None)
    }

    /// What goes into the first layer of packed texts.
    pub(super) fn embed_packed(&self, ids: Tensor<2, Int>, segments: &Segments) -> Tensor<3> {
        let (lengths, positions) = (segments.lengths(), self.positions());
        assert!(
            self.prefix.is_none(),
            "packed texts have no place for the virtual tokens of a prefix"
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
        let places: Vec<i64> = segments.positions().map(|place| place as i64).collect();
        let places = TensorData::new(places, ids.dims());
        let places = Tensor::from_data(places, &ids.device());
        self.embed(ids, Some(places), 0)
    }

    /// What goes into the first layer.
    pub(super) fn embed(
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

    /// What is hidden in all layers, of so many keys.
    pub(super) fn visible(&self, keys: usize, attention_mask: Option<Tensor<2, Bool>>) -> Visible {
        let virtual_tokens = self.virtual_tokens();
        let padding = hidden_padding(keys, attention_mask);
        Visible {
            padding: padding.map(|mask| see_before(mask, virtual_tokens)),
            segments: None,
        }
    }

    fn positions(&self) -> usize {
        self.wpe.weight.lazy_shape()[0]
    }

    fn virtual_tokens(&self) -> usize {
        self.prefix.as_ref().map_or(0, Prefix::tokens)
    }
}

impl Gpt2LmHead {
    /// Its configuration.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// [`Gpt2::forward`]: the hidden states, to be projected where they are needed.
    ///
    /// # Shapes
    /// As [`Gpt2::forward`].
    ///
    /// # Panics
    /// As [`Gpt2::forward`].
    pub fn forward_hidden(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        position_ids: Option<Tensor<2, Int>>,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        self.transformer
            .forward(ids, attention_mask, position_ids, cache)
    }

    /// [`Gpt2::forward_packed`]: the hidden states of texts that are packed into one row.
    ///
    /// # Shapes
    /// As [`Gpt2::forward_packed`].
    ///
    /// # Panics
    /// As [`Gpt2::forward_packed`].
    pub fn forward_packed(&self, ids: Tensor<2, Int>, segments: &Segments) -> Tensor<3> {
        self.transformer.forward_packed(ids, segments)
    }

    /// Projects hidden states to the vocabulary.
    ///
    /// A tied projection uses the embedding's own weight: an adapter on the embedding does not act
    /// here, as in PEFT.
    ///
    /// # Shapes
    /// - `hidden`: `[..., d_model]`
    /// - returns `[..., vocab_size]`
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => linear(hidden, self.transformer.wte.tied_weight().transpose(), None),
        }
    }

    /// The logits of every token: [`forward_hidden`](Self::forward_hidden), then
    /// [`logits`](Self::logits).
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
        self.logits(self.forward_hidden(ids, attention_mask, None, None))
    }
}

impl CausalModel for Gpt2LmHead {
    fn vocab_size(&self) -> usize {
        self.transformer.wte.weight.lazy_shape()[0]
    }

    fn max_positions(&self) -> usize {
        self.transformer.positions() - self.virtual_tokens()
    }

    fn virtual_tokens(&self) -> usize {
        self.transformer.virtual_tokens()
    }

    fn cache_layers(&self) -> usize {
        self.transformer.h.len()
    }

    fn next_logits(
        &self,
        ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
        position_ids: Tensor<2, Int>,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        let [_, seq] = ids.dims();
        let hidden = self.forward_hidden(ids, attention_mask, Some(position_ids), Some(cache));
        // [rows, seq, d_model] -> [rows, d_model]
        let last = hidden.narrow(1, seq - 1, 1).squeeze_dim::<2>(1);
        self.logits(last)
    }
}
