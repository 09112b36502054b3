//! GPT-2 as a language model: layer by layer, through the loss, and token by token.

use super::Gpt2LmHead;
use crate::blocks::{Blocks, first_trained, trains};
use crate::causal::{CausalInput, CausalLm};
use crate::generate::{CausalModel, KvCache};
use crate::lm::{Ends, TextMask};
use burn::tensor::{Bool, Int, Tensor};
use lora_core::ops::{CrossEntropy, HeadLoss};

impl Blocks for Gpt2LmHead {
    type Input = CausalInput;
    type Shared = TextMask;

    fn blocks(&self) -> usize {
        self.transformer.h.len()
    }

    fn embed(&self, input: &CausalInput) -> Tensor<3> {
        let ids = input.ids.clone();
        match &input.segments {
            None => (self.transformer).embed(ids, input.position_ids.clone(), 0),
            Some(segments) => self.transformer.embed_packed(ids, segments),
        }
    }

    fn shared(&self, input: &CausalInput) -> TextMask {
        let [_, seq] = input.ids.dims();
        match &input.segments {
            None => (self.transformer).text_mask(seq, input.attention_mask.clone()),
            Some(segments) => TextMask::within(segments),
        }
    }

    fn block(&self, index: usize, x: Tensor<3>, mask: &TextMask) -> Tensor<3> {
        self.transformer.block(index, x, mask)
    }

    fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        self.transformer.ln_f.forward(x)
    }

    fn first_trained(&self) -> Option<usize> {
        let model = &self.transformer;
        let others = trains(&model.wte) || trains(&model.wpe) || trains(&model.added);
        first_trained(&model.h, others)
    }
}

impl CausalLm for Gpt2LmHead {
    fn loss(&self, hidden: Tensor<2>, targets: Tensor<1, Int>, options: &CrossEntropy) -> HeadLoss {
        let (wte, head) = (&self.transformer.wte, self.lm_head.as_ref());
        Ends::loss(wte, head, hidden, targets, options)
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
        let positions = Some(position_ids);
        let hidden = (self.transformer).forward(ids, attention_mask, positions, Some(cache));
        // [rows, seq, d_model] -> [rows, d_model]
        let last = hidden.narrow(1, seq - 1, 1).squeeze_dim::<2>(1);
        self.logits(last)
    }
}
