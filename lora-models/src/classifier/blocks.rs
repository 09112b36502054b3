//! Encoders block by block.

use super::model::{Classifier, EncoderInput, Trunk};
use crate::Blocks;
use crate::added::{AddedModel, LayerAdded};
use crate::blocks::{first_trained, trains};
use crate::deberta::DebertaContext;
use crate::decoder::DecoderShared;
use crate::encoder::{HeadedDecoder, Rows, VirtualRows, padding_mask};
use crate::gpt2::TextMask;
use crate::prefix::{Prefix, PrefixKind, PrefixLayer};
use burn::tensor::{Bool, Int, Tensor};

/// State that all layers of an encoder share.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A batch has one.
pub enum EncoderShared {
    /// Bias of the scores that masks padding, `[batch, 1, 1, seq]`.
    Bert(Tensor<4>),
    /// Mask and relative positions of DeBERTa, and the attention mask.
    Deberta(DebertaContext, Tensor<2, Bool>),
    /// Attention mask of GPT-2, and the index of the last token of each text, `[batch]`.
    Gpt2(TextMask, Tensor<1, Int>),
    /// Mask and angles of a decoder of the Llama kind, and the index of the last token of each text, `[batch]`.
    Decoder(DecoderShared, Tensor<1, Int>),
}

impl Classifier {
    /// Returns the hidden states after the last layer, of which only `rows` are computed.
    pub(super) fn states(&self, rows: Rows, input: &EncoderInput) -> Tensor<3> {
        let x = self.embed(input);
        let shared = &self.shared(input);
        let layers = 0..self.blocks();
        self.finish(layers.fold(x, |x, index| self.layer(index, rows, x, shared)))
    }

    fn layer(&self, index: usize, rows: Rows, x: Tensor<3>, shared: &EncoderShared) -> Tensor<3> {
        let is_last = index + 1 == self.blocks();
        let x = self.with_activations(index, x);
        let prefix = self.keys_and_values(index);
        let added = LayerAdded {
            prefix: prefix.as_ref(),
            adapters: self.added().layer(index),
        };
        let of_decoder = |x: Tensor<3>, last: &Tensor<1, Int>| match rows {
            Rows::One(_) if is_last => select_rows(x, last),
            _ => x,
        };
        let x = match (&self.trunk, shared) {
            (Trunk::Bert(model), EncoderShared::Bert(hidden)) => {
                (model.encoder).forward_layer(index, rows, x, hidden, added)
            }
            (Trunk::Deberta(model), EncoderShared::Deberta(context, mask)) => {
                (model.encoder).forward_layer(index, rows, x, context, mask, added)
            }
            (Trunk::Gpt2(model), EncoderShared::Gpt2(mask, last)) => {
                return of_decoder(model.block(index, x, mask), last);
            }
            (Trunk::Decoder(model), EncoderShared::Decoder(shared, last)) => {
                return of_decoder(model.layer(index, x, shared), last);
            }
            _ => panic!("the shared state belongs to a model of another family"),
        };
        let [_, found, _] = x.dims();
        match rows {
            _ if !is_last => x,
            // A layer with a convolution beside it computes all rows.
            Rows::One(row) if found > 1 => x.narrow(1, row, 1),
            Rows::One(_) => x,
            Rows::All => {
                let tokens = self.virtual_rows();
                x.narrow(1, tokens, found - tokens)
            }
        }
    }

    /// Returns the kind of the virtual tokens of an encoder, which is not a decoder with a head.
    fn encoder_prefix(&self) -> Option<&Prefix> {
        match &self.trunk {
            Trunk::Gpt2(_) | Trunk::Decoder(_) => None,
            _ => self.prefix(),
        }
    }

    /// Returns the number of virtual tokens that are rows of the sequence.
    fn virtual_rows(&self) -> usize {
        match self.encoder_prefix() {
            Some(prefix) if prefix.kind() != PrefixKind::KeysAndValues => prefix.tokens(),
            _ => 0,
        }
    }

    /// Returns the row that a head on sequences reads: the first one, as in PEFT, or the first of the text behind activations.
    pub(super) fn head_row(&self) -> usize {
        match self.encoder_prefix() {
            Some(prefix) if prefix.kind() == PrefixKind::Activations => prefix.tokens(),
            _ => 0,
        }
    }

    /// Returns the keys and values of virtual tokens in a layer of an encoder.
    fn keys_and_values(&self, index: usize) -> Option<PrefixLayer> {
        let prefix = self.encoder_prefix()?;
        (prefix.kind() == PrefixKind::KeysAndValues).then(|| prefix.layer(index))
    }

    /// Puts the trained activations of a layer in the place of its first rows; before the first layer there are none.
    fn with_activations(&self, index: usize, x: Tensor<3>) -> Tensor<3> {
        let prefix = self.encoder_prefix();
        let Some(prefix) = prefix.filter(|prefix| prefix.kind() == PrefixKind::Activations) else {
            return x;
        };
        let (tokens, [batch, rows, d]) = (prefix.tokens(), x.dims());
        let text = match index {
            0 => x,
            _ => x.narrow(1, tokens, rows - tokens),
        };
        let own = prefix.states(index).expand([batch, tokens, d]);
        Tensor::cat(vec![own, text], 1)
    }

    /// Extends the mask of a text by virtual tokens.
    fn mask_with_virtual(&self, mask: &Tensor<2, Bool>, tokens: usize) -> Tensor<2, Bool> {
        if tokens == 0 {
            return mask.clone();
        }
        let shape = [mask.dims()[0], tokens];
        let seen = Tensor::<2, Int>::ones(shape, &mask.device()).equal_elem(1);
        Tensor::cat(vec![seen, mask.clone()], 1)
    }

    /// Returns the index of the last token of each text, `[batch]`, as `…ForSequenceClassification` of a decoder finds it: the last
    /// token that is not the padding token, wherever it stands; without a padding token, the last one of the attention mask.
    fn last_tokens(&self, input: &EncoderInput) -> Tensor<1, Int> {
        let [_, seq] = input.ids.dims();
        let device = input.ids.device();
        let decoder = self.config.decoder.as_ref();
        let is_token = match decoder.and_then(HeadedDecoder::pad_token_id) {
            Some(pad) => input.ids.clone().not_equal_elem(i64::from(pad)),
            None => input.mask.clone(),
        };
        // The index of a token, and 0 for padding.
        let indices = Tensor::<1, Int>::arange(0..seq as i64, &device);
        let indices = indices.unsqueeze::<2>() * is_token.int();
        indices.max_dim(1).squeeze_dim(1)
    }
}

/// Returns one row of each text.
///
/// # Shapes
/// - `x`: `[batch, seq, d]`; `rows`: `[batch]`
/// - returns `[batch, 1, d]`
fn select_rows(x: Tensor<3>, rows: &Tensor<1, Int>) -> Tensor<3> {
    let [batch, seq, d] = x.dims();
    let starts = Tensor::<1, Int>::arange(0..batch as i64, &x.device()) * seq as i64;
    x.reshape([batch * seq, d])
        .select(0, starts + rows.clone())
        .reshape([batch, 1, d])
}

impl Blocks for Classifier {
    type Input = EncoderInput;
    type Shared = EncoderShared;

    fn blocks(&self) -> usize {
        match &self.trunk {
            Trunk::Bert(model) => model.encoder.layer.len(),
            Trunk::Deberta(model) => model.encoder.layer.len(),
            Trunk::Gpt2(model) => model.h.len(),
            Trunk::Decoder(model) => model.layers.len(),
        }
    }

    fn embed(&self, input: &EncoderInput) -> Tensor<3> {
        let embeddings = match &self.trunk {
            Trunk::Bert(model) => &model.embeddings,
            Trunk::Deberta(model) => &model.embeddings,
            Trunk::Gpt2(model) => return model.embed(input.ids.clone(), None, 0),
            Trunk::Decoder(model) => return model.embed(input.ids.clone()),
        };
        let (prefix, mut mask) = (self.encoder_prefix(), input.mask.clone());
        let mut before = VirtualRows::default();
        match prefix.map(Prefix::kind) {
            None => {}
            Some(PrefixKind::Embeddings) => {
                before.embeddings = prefix.map(|prefix| prefix.states(0));
                mask = self.mask_with_virtual(&mask, self.virtual_rows());
            }
            Some(_) => before.skipped = self.added().virtual_tokens(),
        }
        embeddings.with_virtual(input.ids.clone(), &mask, input.type_ids.clone(), before)
    }

    fn shared(&self, input: &EncoderInput) -> EncoderShared {
        let of = |tokens| self.mask_with_virtual(&input.mask, tokens);
        match &self.trunk {
            Trunk::Bert(_) => EncoderShared::Bert(padding_mask(&of(self.added().virtual_tokens()))),
            Trunk::Deberta(model) => {
                let (rows, keys) = (of(self.virtual_rows()), of(self.added().virtual_tokens()));
                EncoderShared::Deberta(model.encoder.context(&rows, &keys), rows)
            }
            Trunk::Gpt2(model) => {
                let [_, seq] = input.ids.dims();
                let mask = model.text_mask(seq, Some(input.mask.clone()));
                EncoderShared::Gpt2(mask, self.last_tokens(input))
            }
            Trunk::Decoder(model) => {
                let ([_, seq], device) = (input.ids.dims(), input.ids.device());
                let shared = model.shared(0, seq, Some(input.mask.clone()), None, &device);
                EncoderShared::Decoder(shared, self.last_tokens(input))
            }
        }
    }

    fn shared_again(&self, input: &EncoderInput, before: &EncoderShared) -> EncoderShared {
        match (&self.trunk, before) {
            (Trunk::Decoder(model), EncoderShared::Decoder(before, last)) => {
                EncoderShared::Decoder(model.shared_again(before), last.clone())
            }
            _ => self.shared(input),
        }
    }

    /// Applies a block. For a head on sequences, which reads the first token alone, or the last one of a decoder, the last
    /// block returns `[batch, 1, hidden_size]`.
    ///
    /// # Panics
    /// If `shared` belongs to a model of another family.
    fn block(&self, index: usize, x: Tensor<3>, shared: &EncoderShared) -> Tensor<3> {
        self.layer(index, self.rows(), x, shared)
    }

    fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.trunk {
            Trunk::Gpt2(model) => model.ln_f.forward(x),
            Trunk::Decoder(model) => model.norm.forward(x),
            _ => x,
        }
    }

    fn first_trained(&self) -> Option<usize> {
        match &self.trunk {
            Trunk::Bert(model) => {
                let others = trains(&model.embeddings) || trains(&model.added);
                first_trained(&model.encoder.layer, others)
            }
            Trunk::Gpt2(model) => {
                let others = trains(&model.wte) || trains(&model.wpe) || trains(&model.added);
                first_trained(&model.h, others)
            }
            Trunk::Decoder(model) => {
                let others = trains(&model.embed_tokens) || trains(&model.added);
                first_trained(&model.layers, others)
            }
            Trunk::Deberta(model) => {
                let encoder = &model.encoder;
                let others = trains(&model.embeddings)
                    || trains(&model.added)
                    || trains(&encoder.rel_embeddings)
                    || trains(&encoder.layer_norm)
                    || trains(&encoder.conv);
                first_trained(&encoder.layer, others)
            }
        }
    }
}
