//! The model block by block.

use super::Gpt2LmHead;
use crate::Blocks;
use crate::blocks::{first_trained, trains};
use burn::tensor::{Bool, Int, Tensor};

/// A batch as [`Gpt2::forward`](super::Gpt2::forward) takes it, without a cache.
#[derive(Clone, Debug)]
pub struct Gpt2Input {
    /// `[batch, seq]`.
    pub ids: Tensor<2, Int>,
    /// `[batch, seq]`, true for a token, false for padding.
    pub attention_mask: Option<Tensor<2, Bool>>,
    /// `[batch or 1, seq]`.
    pub position_ids: Option<Tensor<2, Int>>,
}

impl Blocks for Gpt2LmHead {
    type Input = Gpt2Input;
    /// Added to the scores.
    type Shared = Option<Tensor<4>>;

    fn blocks(&self) -> usize {
        self.transformer.h.len()
    }

    fn embed(&self, input: &Gpt2Input) -> Tensor<3> {
        let position_ids = input.position_ids.clone();
        self.transformer.embed(input.ids.clone(), position_ids, 0)
    }

    fn shared(&self, input: &Gpt2Input) -> Self::Shared {
        let [_, seq] = input.ids.dims();
        self.transformer.mask(seq, input.attention_mask.clone())
    }

    fn block(&self, index: usize, x: Tensor<3>, mask: &Self::Shared) -> Tensor<3> {
        let prefix = self.transformer.prefix.as_ref();
        let prefix = prefix.map(|prefix| prefix.layer(index));
        self.transformer.h[index].forward(x, mask.as_ref(), None, prefix.as_ref())
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
