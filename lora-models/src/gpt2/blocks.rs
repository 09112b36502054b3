//! The model block by block.

use super::Gpt2LmHead;
use super::mask::Visible;
use crate::Blocks;
use crate::blocks::{first_trained, trains};
use burn::tensor::{Bool, Int, Tensor};
use lora_core::ops::Segments;

/// A batch as [`Gpt2::forward`](super::Gpt2::forward) takes it, without a cache.
#[derive(Clone, Debug)]
pub struct Gpt2Input {
    /// `[batch, seq]`.
    pub ids: Tensor<2, Int>,
    /// `[batch, seq]`, true for a token, false for padding.
    pub attention_mask: Option<Tensor<2, Bool>>,
    /// `[batch or 1, seq]`.
    pub position_ids: Option<Tensor<2, Int>>,
    /// The texts that the ids of one row are packed of, as [`Gpt2::forward_packed`](super::Gpt2::forward_packed) takes them:
    /// then there is neither mask nor position ids.
    pub segments: Option<Segments>,
}

impl Blocks for Gpt2LmHead {
    type Input = Gpt2Input;
    type Shared = Visible;

    fn blocks(&self) -> usize {
        self.transformer.h.len()
    }

    fn embed(&self, input: &Gpt2Input) -> Tensor<3> {
        let ids = input.ids.clone();
        match &input.segments {
            None => (self.transformer).embed(ids, input.position_ids.clone(), 0),
            Some(segments) => self.transformer.embed_packed(ids, segments),
        }
    }

    fn shared(&self, input: &Gpt2Input) -> Self::Shared {
        let [_, seq] = input.ids.dims();
        match &input.segments {
            None => (self.transformer).visible(seq, input.attention_mask.clone()),
            Some(segments) => Visible::within(segments),
        }
    }

    fn block(&self, index: usize, x: Tensor<3>, visible: &Visible) -> Tensor<3> {
        let prefix = self.transformer.prefix.as_ref();
        let prefix = prefix.map(|prefix| prefix.layer(index));
        self.transformer.h[index].forward(x, visible, None, prefix.as_ref())
    }

    fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        self.transformer.ln_f.forward(x)
    }

    fn first_trained(&self) -> Option<usize> {
        let model = &self.transformer;
        let others = trains(&model.wte) || trains(&model.wpe) || trains(&model.prefix);
        first_trained(&model.h, others)
    }
}
