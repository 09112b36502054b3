//! Causal language modelling: predict the next token.

use crate::TrainError;
use crate::data::{Batch, ClassTargets};
use crate::host;
use crate::trainer::{MicroBatch, StepOutput, checkpointed_step, train_step};
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_train::{InferenceStep, TrainOutput, TrainStep};
use lora_core::named::in_rows;
use lora_core::ops::{CrossEntropy, HeadLoss};
use lora_models::LoraModel;
use lora_models::gpt2::{Gpt2Input, Gpt2LmHead};

/// A GPT-2 with its loss.
///
/// The loss of a token is `-log p(token)`, with label smoothing ε
/// `(1 - ε) · -log p(token) + ε · mean over the vocabulary of -log p`, as in PyTorch. Logits are
/// computed for the positions that carry a label only.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// The model.
    pub model: Gpt2LmHead,
    label_smoothing: f64,
    checkpoints_activations: bool,
}

/// How well each labelled token of a batch was predicted, without label smoothing.
#[derive(Clone, Debug, Default)]
pub struct TokenScores {
    /// The example in the batch that each token belongs to.
    pub example: Vec<usize>,
    /// `-log p(token)`.
    pub nll: Vec<f32>,
    /// Whether the token was the most likely one.
    pub correct: Vec<bool>,
}

impl CausalLm {
    /// A model to train, with label smoothing in [0, 1).
    pub fn new(model: Gpt2LmHead, label_smoothing: f64) -> Self {
        Self {
            model,
            label_smoothing,
            checkpoints_activations: false,
        }
    }

    /// Whether training keeps the inputs of blocks only, and makes the rest again in the backward pass.
    pub fn with_checkpointed_activations(mut self, on: bool) -> Self {
        self.checkpoints_activations = on;
        self
    }

    /// A batch as the model reads it.
    fn input(&self, batch: &Batch) -> Gpt2Input {
        let device = self.model.device();
        let shape = [batch.batch, batch.seq];
        let ids = TensorData::new(batch.input_ids.clone(), shape);
        let ids = Tensor::<2, Int>::from_data(ids, &device);
        // Padding is at the right, where the causal mask hides it from every labelled position:
        // without a mask the numbers are the same, and there is less to compute.
        let padded_left = (0..batch.batch).any(|row| !batch.attention_mask[row * batch.seq]);
        let mask = padded_left.then(|| {
            let mask = TensorData::new(batch.attention_mask.clone(), shape);
            Tensor::<2, Bool>::from_data(mask, &device)
        });
        Gpt2Input {
            ids,
            attention_mask: mask,
            position_ids: None,
            segments: batch.segments.clone(),
        }
    }

    /// The loss of the labelled positions, summed, and what is known of each.
    fn loss(&self, batch: &Batch, options: &CrossEntropy) -> HeadLoss {
        let input = self.input(batch);
        let hidden = match &input.segments {
            None => self
                .model
                .forward_hidden(input.ids, input.attention_mask, None, None),
            Some(segments) => self.model.forward_packed(input.ids, segments),
        };
        self.loss_of(hidden, batch, options)
    }

    fn loss_of(&self, hidden: Tensor<3>, batch: &Batch, options: &CrossEntropy) -> HeadLoss {
        let ClassTargets {
            rows,
            classes,
            examples,
        } = batch.targets.classes();
        let device = self.model.device();
        let [_, _, d_model] = hidden.dims();
        let hidden = hidden.reshape([batch.batch * batch.seq, d_model]);
        let integers = |values: &[i64]| {
            let data = TensorData::new(values.to_vec(), [values.len()]);
            Tensor::<1, Int>::from_data(data, &device)
        };
        let hidden = hidden.select(0, integers(rows));
        let targets = integers(classes);
        // Each row has the adapter of its example, where examples have their own.
        in_rows(examples, || self.model.loss(hidden, targets, options))
    }

    /// The loss summed over the labelled tokens, `[1]`.
    fn loss_sum(&self, batch: &Batch) -> Tensor<1> {
        let options = CrossEntropy::new(self.label_smoothing);
        self.loss(batch, &options).loss
    }

    /// Scores every labelled token of a batch.
    ///
    /// # Errors
    /// If the device fails.
    pub fn score(&self, batch: &Batch) -> Result<TokenScores, TrainError> {
        let targets = batch.targets.classes();
        if targets.classes.is_empty() {
            return Ok(TokenScores::default());
        }
        let scores = self.loss(batch, &CrossEntropy::default());
        let nll = host::values(scores.nll)?;
        let best = host::integers(scores.best)?;
        Ok(TokenScores {
            correct: best
                .iter()
                .zip(&targets.classes)
                .map(|(b, t)| b == t)
                .collect(),
            example: targets.examples.clone(),
            nll,
        })
    }
}

impl TrainStep for CausalLm {
    type Input = MicroBatch<Batch>;
    type Output = StepOutput;

    fn step(&self, micro: MicroBatch<Batch>) -> TrainOutput<StepOutput> {
        if !self.checkpoints_activations {
            return train_step(self, &self.model.device(), &micro, |batch| {
                self.loss_sum(batch)
            });
        }
        let input = self.input(&micro.batch);
        checkpointed_step(self, &self.model, &input, &micro, |hidden| {
            let options = CrossEntropy::new(self.label_smoothing);
            self.loss_of(hidden, &micro.batch, &options).loss
        })
    }
}

impl InferenceStep for CausalLm {
    type Input = MicroBatch<Batch>;
    type Output = StepOutput;

    fn step(&self, micro: MicroBatch<Batch>) -> StepOutput {
        StepOutput {
            loss: self.loss_sum(&micro.batch).mul_scalar(micro.loss_scale),
        }
    }
}
