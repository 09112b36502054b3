//! The loss of hidden states, without the logits of all of them at once.

use super::Gpt2LmHead;
use burn::tensor::{Int, Tensor};
use lora_core::ops::{CrossEntropy, HeadLoss, head_loss, loss_of_logits};

impl Gpt2LmHead {
    /// The cross entropy of what [`logits`](Self::logits) makes of hidden states.
    ///
    /// A projection that is a matrix and no more is taken together with its loss, some rows at a time; one with an
    /// adapter makes the logits first.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, d_model]`
    /// - `targets`: `[rows]`; a negative one counts for nothing
    ///
    /// # Panics
    /// If the shapes do not fit, or a target is no token.
    pub fn loss(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        options: &CrossEntropy,
    ) -> HeadLoss {
        let weight = match &self.lm_head {
            None => self.transformer.wte.tied_weight().transpose(),
            Some(head) if !head.is_adapted() && head.bias.is_none() => head.weight.val(),
            Some(_) => return loss_of_logits(self.logits(hidden), targets, options),
        };
        head_loss(hidden, weight, targets, options)
    }
}
