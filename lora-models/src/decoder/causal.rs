//! A decoder as a language model: layer by layer, through the loss, and token by token.

use super::model::DecoderLm;
use super::rope::RopeKind;
use super::shared::DecoderShared;
use crate::blocks::{Blocks, first_trained, trains};
use crate::causal::{CausalInput, CausalLm};
use crate::generate::{CausalModel, KvCache};
use crate::lm::Ends;
use burn::tensor::{Bool, Int, Tensor};
use lora_core::ops::{CrossEntropy, HeadLoss};

impl Blocks for DecoderLm {
    type Input = CausalInput;
    type Shared = DecoderShared;

    fn blocks(&self) -> usize {
        self.model.layers.len()
    }

    fn embed(&self, input: &CausalInput) -> Tensor<3> {
        self.model.embed(input.ids.clone())
    }

    fn shared(&self, input: &CausalInput) -> DecoderShared {
        let ([_, seq], device) = (input.ids.dims(), input.ids.device());
        match &input.segments {
            Some(segments) => self.model.shared_within(segments, seq, &device),
            None => {
                let (mask, positions) = (&input.attention_mask, &input.position_ids);
                (self.model).shared(0, seq, mask.clone(), positions.clone(), &device)
            }
        }
    }

    /// Computes the virtual tokens, which may be trained.
    fn shared_again(&self, _input: &CausalInput, before: &DecoderShared) -> DecoderShared {
        self.model.shared_again(before)
    }

    fn block(&self, index: usize, x: Tensor<3>, shared: &DecoderShared) -> Tensor<3> {
        self.model.layer(index, x, shared)
    }

    fn finish(&self, x: Tensor<3>) -> Tensor<3> {
        self.model.norm.forward(x)
    }

    fn first_trained(&self) -> Option<usize> {
        let model = &self.model;
        let others = trains(&model.embed_tokens) || trains(&model.added);
        first_trained(&model.layers, others)
    }
}

impl CausalLm for DecoderLm {
    fn loss(&self, hidden: Tensor<2>, targets: Tensor<1, Int>, options: &CrossEntropy) -> HeadLoss {
        let hidden = self.before_head(hidden);
        let (embedding, head) = (&self.model.embed_tokens, self.lm_head.as_ref());
        let options = options.clone().with_logit_cap(self.config().logit_cap);
        Ends::loss(embedding, head, hidden, targets, &options)
    }
}

impl CausalModel for DecoderLm {
    fn vocab_size(&self) -> usize {
        self.model.embed_tokens.weight.lazy_shape()[0]
    }

    fn max_positions(&self) -> usize {
        let positions = self.config().max_position_embeddings;
        positions.saturating_sub(self.model.virtual_tokens())
    }

    fn virtual_tokens(&self) -> usize {
        self.model.virtual_tokens()
    }

    fn rereads_above(&self) -> Vec<usize> {
        let ropes = self.config().ropes.iter();
        let limits = ropes.filter_map(|rope| match rope.kind {
            RopeKind::LongRope { original, .. } => Some(original),
            _ => None,
        });
        // Virtual tokens count among the positions.
        let shift = self.virtual_tokens();
        limits.map(|limit| limit.saturating_sub(shift)).collect()
    }

    fn cache_layers(&self) -> usize {
        self.model.layers.len()
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
        let hidden = (self.model).forward(ids, attention_mask, positions, Some(cache));
        // [rows, seq, hidden_size] -> [rows, hidden_size]
        let last = hidden.narrow(1, seq - 1, 1).squeeze_dim::<2>(1);
        self.logits(last)
    }
}
