//! Decoder language models of any family.

use crate::blocks::Blocks;
use crate::generate::CausalModel;
use crate::pretrained::{LoadOptions, Pretrained};
use burn::module::ModuleDisplay;
use burn::tensor::{Bool, Int, Tensor};
use lora_core::ops::{CrossEntropy, HeadLoss, Segments};

/// A language model that predicts each token from those before it.
///
/// A family implements [`Pretrained`] (files and random weights), [`CausalModel`] (next logits), [`Blocks`] (hidden
/// states layer by layer) and [`loss`](Self::loss); training, generation and the program `lora` use this trait alone.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Int, Tensor};
/// use lora_core::ops::CrossEntropy;
/// use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
/// use lora_models::{CausalInput, CausalLm};
///
/// let config = Gpt2Config { n_layer: 2, n_embd: 64, n_head: 4, vocab_size: 100, ..Gpt2Config::default() };
/// let model = Gpt2LmHead::init(&config, 0, &Device::flex())?;
/// let ids = Tensor::<2, Int>::from_ints([[5, 6, 7]], &Device::flex());
/// let hidden = model.hidden_states(&CausalInput::new(ids));
/// assert_eq!(hidden.dims(), [1, 3, 64]);
///
/// let targets = Tensor::<1, Int>::from_ints([6, 7, 8], &Device::flex());
/// let loss = model.loss(hidden.squeeze_dim(0), targets, &CrossEntropy::default()).loss;
/// // Random weights predict every token about as well as any other.
/// assert!((loss.into_scalar::<f32>() / 3.0 - 100f32.ln()).abs() < 0.2);
/// # Ok::<(), lora_models::ModelError>(())
/// ```
pub trait CausalLm:
    Pretrained<Options = LoadOptions>
    + CausalModel
    + Blocks<Input = CausalInput>
    + ModuleDisplay
    + 'static
{
    /// Returns the hidden states of every token, after the last normalization.
    ///
    /// # Shapes
    /// - returns `[batch, seq, d_model]`; the values at padding are unspecified
    ///
    /// # Panics
    /// If the shapes do not fit, or a text has more tokens than the model has positions.
    fn hidden_states(&self, input: &CausalInput) -> Tensor<3> {
        let shared = self.shared(input);
        let states =
            (0..self.blocks()).fold(self.embed(input), |x, index| self.block(index, x, &shared));
        self.finish(states)
    }

    /// Computes the cross entropy of hidden states through the output layer, without the logits of all rows at once
    /// where the output layer is a matrix alone.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, d_model]`
    /// - `targets`: `[rows]`; a negative target is ignored
    ///
    /// # Panics
    /// If the shapes do not fit, or a target is not below the vocabulary's size.
    fn loss(&self, hidden: Tensor<2>, targets: Tensor<1, Int>, options: &CrossEntropy) -> HeadLoss;
}

/// A batch of texts for a [`CausalLm`].
#[derive(Clone, Debug)]
pub struct CausalInput {
    /// Token ids, `[batch, seq]`.
    pub ids: Tensor<2, Int>,
    /// Attention mask, `[batch, seq]`: true for a token, false for padding. `None` without padding on the left.
    pub attention_mask: Option<Tensor<2, Bool>>,
    /// Position ids, `[batch or 1, seq]`. Default: each token's index in its row.
    pub position_ids: Option<Tensor<2, Int>>,
    /// Lengths of the texts that one row of ids is packed of; neither mask nor position ids go with it.
    pub segments: Option<Segments>,
}

impl CausalInput {
    /// Creates a batch without padding.
    pub fn new(ids: Tensor<2, Int>) -> Self {
        Self {
            ids,
            attention_mask: None,
            position_ids: None,
            segments: None,
        }
    }

    /// Sets the attention mask, `[batch, seq]`.
    pub fn with_attention_mask(mut self, mask: Option<Tensor<2, Bool>>) -> Self {
        self.attention_mask = mask;
        self
    }

    /// Sets the texts that the row is packed of.
    pub fn with_segments(mut self, segments: Option<Segments>) -> Self {
        self.segments = segments;
        self
    }
}
