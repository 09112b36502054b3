//! Classification and regression of texts, and token classification.

use crate::TrainError;
use crate::data::{Batch, ClassTargets, ClassWeights, Targets};
use crate::host;
use crate::trainer::{MicroBatch, StepOutput, checkpointed_step, train_step};
use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_train::{InferenceStep, TrainOutput, TrainStep};
use lora_core::ops::{CrossEntropy, loss_of_logits};
use lora_models::LoraTargets;
use lora_models::classifier::{Classifier, EncoderInput};

/// Encoder and head with their loss.
///
/// For a class y with weight `w_y`, label smoothing ε and K classes, the loss is
/// `(1 - ε) · w_y · -log p_y + ε/K · Σ_k w_k · -log p_k`, as in PyTorch, averaged over the weights of the
/// labels. For scores it is the squared error, and for any number of classes the binary cross-entropy of each class, averaged over
/// the outputs and the examples.
#[derive(Module, Debug)]
pub struct Classify {
    /// Model with its head.
    pub model: Classifier,
    label_smoothing: f64,
    #[module(skip)]
    weights: ClassWeights,
    checkpoints_activations: bool,
}

impl Classify {
    /// Creates a task from a model, with label smoothing in [0, 1) and class weights.
    pub fn new(model: Classifier, label_smoothing: f64, weights: ClassWeights) -> Self {
        Self {
            model,
            label_smoothing,
            weights,
            checkpoints_activations: false,
        }
    }

    /// Enables activation checkpointing: training keeps only the inputs of blocks and recomputes the rest in the backward pass.
    pub fn with_checkpointed_activations(mut self, on: bool) -> Self {
        self.checkpoints_activations = on;
        self
    }

    /// Builds the model's input from a batch.
    fn input(&self, batch: &Batch) -> EncoderInput {
        let device = self.model.device();
        let shape = [batch.batch, batch.seq];
        let integers = |values: &[i64]| {
            Tensor::<2, Int>::from_data(TensorData::new(values.to_vec(), shape), &device)
        };
        let mask = TensorData::new(batch.attention_mask.clone(), shape);
        let mask = Tensor::<2, Bool>::from_data(mask, &device);
        EncoderInput {
            ids: integers(&batch.input_ids),
            mask,
            type_ids: (!batch.type_ids.is_empty()).then(|| integers(&batch.type_ids)),
        }
    }

    /// Computes the outputs of the head, `[batch, outputs]`, or `[batch · seq, outputs]` for a head on tokens.
    fn outputs(&self, batch: &Batch) -> Tensor<2> {
        let input = self.input(batch);
        self.model.forward(input.ids, &input.mask, input.type_ids)
    }

    /// Computes the logits: one row per example, or one row per position `[batch · seq]` for a head on tokens.
    ///
    /// # Errors
    /// Fails if the device fails.
    pub fn logits(&self, batch: &Batch) -> Result<Vec<Vec<f32>>, TrainError> {
        let outputs = self.outputs(batch);
        let [_, width] = outputs.dims();
        let values = host::values(outputs)?;
        Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }

    /// Computes the loss summed over the labels, `[1]`.
    fn loss_sum(&self, batch: &Batch) -> Tensor<1> {
        self.loss_from_outputs(self.outputs(batch), &batch.targets)
    }

    fn loss_from_outputs(&self, outputs: Tensor<2>, targets: &Targets) -> Tensor<1> {
        match targets {
            Targets::Scores(scores) => {
                let [rows, width] = outputs.dims();
                let scores = TensorData::new(scores.clone(), [rows, width]);
                let scores = Tensor::<2>::from_data(scores, &self.model.device());
                (outputs - scores).square().sum().div_scalar(width as f64)
            }
            Targets::Sets(sets) => {
                let [rows, width] = outputs.dims();
                let mut ones = vec![0f32; rows * width];
                for (row, classes) in sets.iter().enumerate() {
                    classes
                        .iter()
                        .for_each(|class| ones[row * width + class] = 1.0);
                }
                let ones = TensorData::new(ones, [rows, width]);
                let ones = Tensor::<2>::from_data(ones, &self.model.device());
                // log(1 + eˣ) - x·y without an exponential of a large number.
                let tail = outputs.clone().abs().neg().exp().log1p();
                let loss = relu(outputs.clone()) - outputs * ones + tail;
                loss.sum().div_scalar(width as f64)
            }
            targets => self.cross_entropy(outputs, targets.classes()),
        }
    }

    fn cross_entropy(&self, outputs: Tensor<2>, targets: &ClassTargets) -> Tensor<1> {
        let device = self.model.device();
        let [all, width] = outputs.dims();
        let labels = targets.rows.len();
        if labels == 0 {
            // No gradient, yet a graph for the backward pass.
            return outputs.sum().mul_scalar(0.0);
        }
        let integers = |values: &[i64]| {
            Tensor::<1, Int>::from_data(TensorData::new(values.to_vec(), [labels]), &device)
        };
        let outputs = if labels == all {
            outputs
        } else {
            outputs.select(0, integers(&targets.rows))
        };
        let weights = || (0..width).map(|class| self.weights.of(class) as f32);
        let options = CrossEntropy {
            label_smoothing: self.label_smoothing,
            class_weights: self.weights.values().map(|_| weights().collect()),
            logit_cap: None,
        };
        loss_of_logits(outputs, integers(&targets.classes), &options).loss
    }
}

impl TrainStep for Classify {
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
            self.loss_from_outputs(self.model.head(hidden), &micro.batch.targets)
        })
    }
}

impl InferenceStep for Classify {
    type Input = MicroBatch<Batch>;
    type Output = StepOutput;

    fn step(&self, micro: MicroBatch<Batch>) -> StepOutput {
        StepOutput {
            loss: self.loss_sum(&micro.batch).mul_scalar(micro.loss_scale),
        }
    }
}
