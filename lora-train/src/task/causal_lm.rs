//! Causal language modeling: predict the next token.

use crate::TrainError;
use crate::data::{Batch, ClassTargets};
use crate::host;
use crate::trainer::{MicroBatch, StepOutput, checkpointed_step, train_step};
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_train::{InferenceStep, TrainOutput, TrainStep};
use lora_core::named::in_rows;
use lora_core::ops::{CrossEntropy, HeadLoss};
use lora_models::{CausalInput, CausalLm};

/// Language model with its loss.
///
/// The loss of a token is `-log p(token)`, with label smoothing ε
/// `(1 - ε) · -log p(token) + ε · mean over the vocabulary of -log p`, as in PyTorch. Logits are
/// computed only for positions with a label.
#[derive(Module, Debug)]
pub struct CausalLmTask<M: CausalLm> {
    /// Language model.
    pub model: M,
    label_smoothing: f64,
    checkpoints_activations: bool,
}

/// Scores of the labeled tokens of a batch, without label smoothing.
#[derive(Clone, Debug, Default)]
pub struct TokenScores {
    /// Index in the batch of each token's example.
    pub example: Vec<usize>,
    /// Negative log-likelihood of each token, in nats.
    pub nll: Vec<f32>,
    /// True for each token that was the most likely one.
    pub correct: Vec<bool>,
}

impl<M: CausalLm> CausalLmTask<M> {
    /// Creates the task of a model, with label smoothing in [0, 1).
    pub fn new(model: M, label_smoothing: f64) -> Self {
        Self {
            model,
            label_smoothing,
            checkpoints_activations: false,
        }
    }

    /// Enables checkpointed activations: training keeps the inputs of blocks alone and computes the others again in the
    /// backward pass.
    pub fn with_checkpointed_activations(mut self, on: bool) -> Self {
        self.checkpoints_activations = on;
        self
    }

    /// Moves a batch to the model's device.
    fn input(&self, batch: &Batch) -> CausalInput {
        let device = self.model.device();
        let shape = [batch.batch, batch.seq];
        let ids = TensorData::new(batch.input_ids.clone(), shape);
        let ids = Tensor::<2, Int>::from_data(ids, &device);
        // Padding on the right comes after every labeled position, so that the causal mask covers it: a padding mask
        // would change no number.
        let padded_left = (0..batch.batch).any(|row| !batch.attention_mask[row * batch.seq]);
        let mask = padded_left.then(|| {
            let mask = TensorData::new(batch.attention_mask.clone(), shape);
            Tensor::<2, Bool>::from_data(mask, &device)
        });
        CausalInput::new(ids)
            .with_attention_mask(mask)
            .with_segments(batch.segments.clone())
    }

    /// Computes the summed loss of the labeled positions, and the scores of each.
    fn loss(&self, batch: &Batch, options: &CrossEntropy) -> HeadLoss {
        let hidden = self.model.hidden_states(&self.input(batch));
        self.loss_from_hidden(hidden, batch, options)
    }

    /// Computes the summed loss from the hidden states `[batch, seq, d_model]`.
    fn loss_from_hidden(
        &self,
        hidden: Tensor<3>,
        batch: &Batch,
        options: &CrossEntropy,
    ) -> HeadLoss {
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
        // With an adapter per example, each row has that of its example.
        in_rows(examples, || self.model.loss(hidden, targets, options))
    }

    /// Computes the loss summed over the labeled tokens, `[1]`.
    fn loss_sum(&self, batch: &Batch) -> Tensor<1> {
        let options = CrossEntropy::new(self.label_smoothing);
        self.loss(batch, &options).loss
    }

    /// Scores every labeled token of a batch.
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

impl<M: CausalLm> TrainStep for CausalLmTask<M> {
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
            self.loss_from_hidden(hidden, &micro.batch, &options).loss
        })
    }
}

impl<M: CausalLm> InferenceStep for CausalLmTask<M> {
    type Input = MicroBatch<Batch>;
    type Output = StepOutput;

    fn step(&self, micro: MicroBatch<Batch>) -> StepOutput {
        StepOutput {
            loss: self.loss_sum(&micro.batch).mul_scalar(micro.loss_scale),
        }
    }
}
