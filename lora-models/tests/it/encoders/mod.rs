//! Fixtures and batches of the encoders' tests.

pub mod gradients;

use crate::common::fixture;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation::log_softmax};
use lora_models::checkpoint::{Checkpoint, LoadReport, SafetensorsExport};
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind};
use lora_models::{LoraTargets, Pretrained};
use std::path::PathBuf;
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host, json};

/// The reference is in f64 and the models run in f32. Values are of the order of 1, over at most two
/// layers of sums of some ten terms, and what is seen is below 3e-6; the least that a wrong choice
/// changes, one form of GELU for the other, is above 1e-4.
pub const TOLERANCE: f32 = 2e-5;

/// Models of every family and head, by the directory of their fixture; the part behind the last `_`
/// says which head: three classes, a score, or five tags.
pub const CHECKPOINTS: &[&str] = &[
    "bert_seq",
    "bert_reg",
    "bert_tok",
    "roberta_seq",
    "roberta_reg",
    "roberta_tok",
    "xlmr_seq",
    "xlmr_tok",
    "deberta_seq",
    "deberta_tok",
    "deberta_c2p_seq",
    "v3_seq",
    "v3_reg",
    "v3_tok",
    "xl_seq",
    "gpt2_seq",
    "gpt2_tok",
    "gpt2_nopad_reg",
    "llama_seq",
    "llama_tok",
    "phi3_nopad_reg",
];

/// Adapters of PEFT and the models that they are on.
pub const ADAPTERS: &[(&str, &str)] = &[
    ("bert_default", "bert_seq"),
    ("bert_pooler", "bert_seq"),
    ("bert_regex", "bert_seq"),
    ("bert_ranks", "bert_seq"),
    ("bert_all_linear", "bert_reg"),
    ("bert_tags", "bert_tok"),
    ("roberta_default", "roberta_seq"),
    ("roberta_all_linear", "roberta_reg"),
    ("roberta_tags", "roberta_tok"),
    ("xlmr_default", "xlmr_seq"),
    ("xlmr_words", "xlmr_tok"),
    ("deberta_default", "deberta_seq"),
    ("deberta_all_linear", "deberta_seq"),
    ("deberta_tags", "deberta_tok"),
    ("deberta_c2p_default", "deberta_c2p_seq"),
    ("v3_default", "v3_seq"),
    ("v3_reg", "v3_reg"),
    ("v3_tags", "v3_tok"),
    ("xl_default", "xl_seq"),
    ("xl_all_linear", "xl_seq"),
    ("xl_words", "xl_seq"),
    ("gpt2_default", "gpt2_seq"),
    ("gpt2_all_linear", "gpt2_seq"),
    ("gpt2_words", "gpt2_nopad_reg"),
    ("gpt2_tags", "gpt2_tok"),
    ("llama_default", "llama_seq"),
    ("llama_all_linear", "llama_seq"),
    ("llama_tags", "llama_tok"),
    ("phi3_all_linear", "phi3_nopad_reg"),
];

pub fn encoder(path: &str) -> PathBuf {
    fixture("encoders").join(path)
}

pub fn adapter(name: &str) -> PathBuf {
    encoder("adapters").join(name)
}

/// Reads the values that PEFT computes with an adapter.
pub fn expected_of_adapter(name: &str) -> Tensors {
    Tensors::open(encoder("adapters").join(format!("{name}.safetensors")))
}

/// The inputs of a fixture, and what is expected of the model.
pub fn expected(name: &str) -> Tensors {
    Tensors::open(encoder(name).join("expected.safetensors"))
}

/// The options that a fixture is loaded with.
pub fn options(name: &str) -> ClassifierOptions {
    ClassifierOptions {
        head: if name.ends_with("_tok") {
            HeadKind::Token
        } else {
            HeadKind::Sequence
        },
        ..ClassifierOptions::default()
    }
}

pub fn load(name: &str, device: &Device) -> (Classifier, LoadReport) {
    let loaded = Classifier::load(encoder(name), &options(name), device);
    loaded.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A model of which everything is in its checkpoint.
pub fn model(name: &str, device: &Device) -> Classifier {
    let (model, _) = load(name, device);
    assert!(
        model.random_modules().is_empty(),
        "{name}: {:?}",
        model.random_modules()
    );
    model
}

/// Pairs of texts, filled up on the right.
pub struct Batch {
    pub ids: Tensor<2, Int>,
    pub mask: Tensor<2, Bool>,
    pub type_ids: Tensor<2, Int>,
    /// True for tokens that are not padding, row-major.
    pub real: Vec<bool>,
}

impl Batch {
    pub fn of(tensors: &Tensors, device: &Device) -> Self {
        let (mask, shape) = tensors.ints("attention_mask");
        let real: Vec<bool> = mask.iter().map(|&value| value == 1).collect();
        assert!(real.contains(&false), "there is padding");
        Self {
            ids: tensors.ids("input_ids", device),
            mask: Tensor::from_data(TensorData::new(real.clone(), shape), device),
            type_ids: tensors.ids("token_type_ids", device),
            real,
        }
    }

    /// The batch of a model's fixture.
    pub fn of_model(name: &str, device: &Device) -> Self {
        Self::of(&expected(name), device)
    }

    /// `[batch, seq, hidden_size]`.
    pub fn hidden(&self, model: &Classifier) -> Tensor<3> {
        model.hidden_states(self.ids.clone(), &self.mask, Some(self.type_ids.clone()))
    }

    /// `[batch, outputs]`, or `[batch · seq, outputs]`.
    pub fn logits(&self, model: &Classifier) -> Tensor<2> {
        model.forward(self.ids.clone(), &self.mask, Some(self.type_ids.clone()))
    }

    /// One row of the batch without its padding.
    pub fn row(&self, row: usize) -> Self {
        let [_, seq] = self.ids.dims();
        let real = &self.real[row * seq..(row + 1) * seq];
        let length = real.iter().filter(|&&real| real).count();
        let cut = |ids: &Tensor<2, Int>| ids.clone().narrow(0, row, 1).narrow(1, 0, length);
        Self {
            ids: cut(&self.ids),
            mask: self.mask.clone().narrow(0, row, 1).narrow(1, 0, length),
            type_ids: cut(&self.type_ids),
            real: vec![true; length],
        }
    }

    /// Compares `[batch, outputs]`, or rows of tokens where there is one.
    pub fn assert_rows(
        &self,
        found: &[f32],
        expected: &(Vec<f32>, Vec<usize>),
        tolerance: f32,
        what: &str,
    ) {
        let (expected, shape) = expected;
        assert_eq!(found.len(), expected.len(), "{what}");
        assert!(found.iter().all(|value| value.is_finite()), "{what}");
        let width = shape[shape.len() - 1];
        let rows = found.chunks_exact(width).zip(expected.chunks_exact(width));
        for (at, (found, expected)) in rows.enumerate() {
            if shape.len() == 2 || self.real[at] {
                assert_near(found, expected, tolerance, &format!("{what}, row {at}"));
            }
        }
    }
}

/// The mean loss of a fixture's labels: squared error of a score, or cross entropy of the rows that
/// have a label.
pub fn loss(logits: Tensor<2>, tensors: &Tensors, is_score: bool) -> Tensor<1> {
    let [_, outputs] = logits.dims();
    let device = logits.device();
    if is_score {
        let (labels, shape) = tensors.floats("labels");
        let labels = Tensor::<1>::from_data(TensorData::new(labels, shape), &device);
        let difference = logits.squeeze_dim::<1>(1) - labels;
        return (difference.clone() * difference).mean();
    }
    let (labels, _) = tensors.ints("labels");
    let chosen = labels.iter().enumerate().filter(|(_, label)| **label >= 0);
    let (rows, labels): (Vec<i64>, Vec<i64>) =
        chosen.map(|(row, &label)| (row as i64, label)).unzip();
    assert!(labels.iter().all(|&label| label < outputs as i64));
    let ints = |values: Vec<i64>| {
        let count = values.len();
        Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
    };
    let of_rows = log_softmax(logits.select(0, ints(rows)), 1);
    of_rows
        .gather(1, ints(labels).unsqueeze_dim(1))
        .mean()
        .neg()
}

/// The logits of a model on the batch of a fixture.
pub fn logits_on(model: &Classifier, name: &str) -> Vec<f32> {
    let device = model.device();
    host(Batch::of_model(name, &device).logits(model))
}

/// A copy of a fixture whose names, shapes and configuration went through `change`; every value is
/// a half.
pub fn changed(
    name: &str,
    change: impl Fn(&mut Vec<(String, Vec<usize>)>, &mut serde_json::Value),
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(encoder(name)).unwrap();
    let shape = |name: &str| source.shape(name).unwrap().to_vec();
    let mut plan: Vec<_> = source.names().map(|n| (n.to_string(), shape(n))).collect();
    let mut config = json(&encoder(name).join("config.json"));
    change(&mut plan, &mut config);
    let values = |name: &str| {
        let (_, shape) = plan.iter().find(|(n, _)| n == name).unwrap();
        Ok(vec![0.5; shape.iter().product()])
    };
    SafetensorsExport::new(dir.path())
        .write(&plan, values)
        .unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}
