//! The loss from the reference's logits, with and without label smoothing, on any side of padding.

use crate::common::model;
use burn::module::Module;
use burn::tensor::Device;
use burn_train::{InferenceStep, TrainStep};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{LoadOptions, Pretrained};
use lora_train::data::{Batch, ClassTargets, Targets};
use lora_train::task::CausalLmTask;
use lora_train::trainer::MicroBatch;
use test_support::tensors::Tensors;

/// Label of a position that nothing is learned from, as in PyTorch.
const IGNORE_INDEX: i64 = -100;

struct Case {
    batch: Batch,
    /// As PyTorch has them, `[batch, seq]`.
    labels: Vec<i64>,
    /// `[batch, seq, vocabulary]`.
    logits: Vec<f32>,
    /// Mean over the labels, by transformers.
    loss: f32,
}

fn case(side: &str) -> Case {
    let tensors = Tensors::open(model().join("expected.safetensors"));
    let integers = |name: &str| tensors.ints(&format!("{side}.{name}")).0;
    let floats = |name: &str| tensors.values(&format!("{side}.{name}"));
    let (batch, seq) = (3, 9);
    let labels = integers("labels");
    let counted = |i: usize| labels[i] != IGNORE_INDEX && !i.is_multiple_of(seq);
    let positions: Vec<usize> = (0..labels.len()).filter(|&i| counted(i)).collect();
    Case {
        batch: Batch {
            input_ids: integers("input_ids"),
            attention_mask: integers("attention_mask").iter().map(|&m| m == 1).collect(),
            batch,
            seq,
            type_ids: Vec::new(),
            targets: Targets::Tokens(ClassTargets {
                rows: positions.iter().map(|&i| i as i64 - 1).collect(),
                classes: positions.iter().map(|&i| labels[i]).collect(),
                examples: positions.iter().map(|&i| i / seq).collect(),
            }),
            segments: None,
            weight: positions.len() as f64,
            tokens: batch * seq,
            indices: vec![0, 1, 2],
            origins: Vec::new(),
        },
        labels,
        logits: floats("logits"),
        loss: floats("loss")[0],
    }
}

/// PyTorch's cross entropy with label smoothing, in float64 from the reference's logits.
fn expected(case: &Case, smoothing: f64) -> f64 {
    let batch = &case.batch;
    let vocabulary = case.logits.len() / case.labels.len();
    let mut sum = 0.0;
    for (index, &label) in case.labels.iter().enumerate() {
        if label == IGNORE_INDEX || index.is_multiple_of(batch.seq) {
            continue;
        }
        let row = &case.logits[(index - 1) * vocabulary..index * vocabulary];
        let row: Vec<f64> = row.iter().map(|&logit| f64::from(logit)).collect();
        let log_sum = row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        let nll = log_sum - row[label as usize];
        let mean = log_sum - row.iter().sum::<f64>() / vocabulary as f64;
        sum += (1.0 - smoothing) * nll + smoothing * mean;
    }
    sum / batch.weight
}

fn micro(case: &Case) -> MicroBatch<Batch> {
    MicroBatch {
        batch: case.batch.clone(),
        loss_scale: 1.0 / case.batch.weight,
        seed: 1,
    }
}

#[test]
fn the_loss_is_pytorchs_with_and_without_label_smoothing() {
    let device = Device::flex().autodiff();
    let (gpt2, _) = Gpt2LmHead::load(model(), &LoadOptions::default(), &device).unwrap();
    let right = case("right");
    assert!((expected(&right, 0.0) - f64::from(right.loss)).abs() < 1e-5);
    for smoothing in [0.0, 0.1, 0.5] {
        let task = CausalLmTask::new(gpt2.clone(), smoothing);
        let expected = expected(&right, smoothing);
        let trained = TrainStep::step(&task, micro(&right))
            .item
            .loss
            .into_scalar::<f32>();
        let judged = InferenceStep::step(&task.valid(), micro(&right))
            .loss
            .into_scalar::<f32>();
        for found in [trained, judged] {
            assert!(
                (f64::from(found) - expected).abs() < 1e-4,
                "{smoothing}: {found} {expected}"
            );
        }
    }
}

#[test]
fn scores_are_those_of_each_token_and_example() {
    let (gpt2, _) = Gpt2LmHead::load(model(), &LoadOptions::default(), &Device::flex()).unwrap();
    let right = case("right");
    let scores = CausalLmTask::new(gpt2, 0.0).score(&right.batch).unwrap();
    assert_eq!(scores.nll.len() as f64, right.batch.weight);
    let mean = scores.nll.iter().sum::<f32>() / scores.nll.len() as f32;
    assert!((mean - right.loss).abs() < 1e-4);
    assert!(scores.example.is_sorted() && scores.example.last() == Some(&2));
}
