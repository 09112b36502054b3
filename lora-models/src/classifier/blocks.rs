//! Encoders block by block.

use super::model::{Classifier, EncoderInput, Trunk};
use crate::Blocks;
use crate::blocks::{first_trained, trains};
use crate::deberta::DebertaContext;
use crate::encoder::{Rows, padding_mask};
use crate::gpt2::TextMask;
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
        match (&self.trunk, shared) {
            (Trunk::Bert(model), EncoderShared::Bert(hidden)) => {
                model.encoder.forward_layer(index, rows, x, hidden)
            }
            (Trunk::Deberta(model), EncoderShared::Deberta(context, mask)) => {
                model.encoder.forward_layer(index, rows, x, context, mask)
            }
            (Trunk::Gpt2(model), EncoderShared::Gpt2(mask, last)) => {
                let x = model.block(index, x, mask);
                let is_last = index + 1 == model.h.len();
                match rows {
                    Rows::First if is_last => select_rows(x, last),
                    _ => x,
                }
            }
            _ => panic!("the shared state belongs to a model of another family"),
        }
    }
}

impl Classifier {
    /// Returns the index of the last token of each text, `[batch]`, as `GPT2ForSequenceClassification` finds it: the last token
    /// that is not the padding token, wherever it stands; without a padding token, the last one of the attention mask.
    fn last_tokens(&self, input: &EncoderInput) -> Tensor<1, Int> {
        let [_, seq] = input.ids.dims();
        let device = input.ids.device();
        let decoder = self.config.decoder.as_ref();
        let is_token = match decoder.and_then(|decoder| decoder.pad_token_id) {
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
        }
    }

    fn embed(&self, input: &EncoderInput) -> Tensor<3> {
        let embeddings = match &self.trunk {
            Trunk::Bert(model) => &model.embeddings,
            Trunk::Deberta(model) => &model.embeddings,
            Trunk::Gpt2(model) => return model.embed(input.ids.clone(), None, 0),
        };
        embeddings.forward(input.ids.clone(), &input.mask, input.type_ids.clone())
    }

    fn shared(&self, input: &EncoderInput) -> EncoderShared {
        match &self.trunk {
            Trunk::Bert(_) => EncoderShared::Bert(padding_mask(&input.mask)),
            Trunk::Deberta(model) => {
                EncoderShared::Deberta(model.encoder.context(&input.mask), input.mask.clone())
            }
            Trunk::Gpt2(model) => {
                let [_, seq] = input.ids.dims();
                let mask = model.text_mask(seq, Some(input.mask.clone()));
                EncoderShared::Gpt2(mask, self.last_tokens(input))
            }
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
            _ => x,
        }
    }

    fn first_trained(&self) -> Option<usize> {
        match &self.trunk {
            Trunk::Bert(model) => first_trained(&model.encoder.layer, trains(&model.embeddings)),
            Trunk::Gpt2(model) => {
                let others = trains(&model.wte) || trains(&model.wpe) || trains(&model.prefix);
                first_trained(&model.h, others)
            }
            Trunk::Deberta(model) => {
                let encoder = &model.encoder;
                let others = trains(&model.embeddings)
                    || trains(&encoder.rel_embeddings)
                    || trains(&encoder.layer_norm)
                    || trains(&encoder.conv);
                first_trained(&encoder.layer, others)
            }
        }
    }
}
