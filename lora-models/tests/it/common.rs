//! Fixtures and batches of this crate's tests.

use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::{LoadOptions, Pretrained};
use std::path::PathBuf;
use test_support::compare::assert_near;
use test_support::fill::Fill;
use test_support::tensors::{Tensors, host};

/// Fixtures are computed in f64 and the models run in f32; logits are of the order of 10.
pub const TOLERANCE: f32 = 1e-4;

pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

pub fn load(name: &str, device: &Device) -> (Gpt2LmHead, Gpt2Config) {
    let (model, _) = Gpt2LmHead::load(fixture(name), &LoadOptions::default(), device).unwrap();
    let config = model.config().clone();
    (model, config)
}

/// Reads what transformers computes with a model of the fixtures.
pub fn model_tensors(model: &str) -> Tensors {
    Tensors::open(fixture(model).join("expected.safetensors"))
}

/// Reads an attention mask, and where it has a token, row-major.
pub fn mask_of(tensors: &Tensors, name: &str, device: &Device) -> (Tensor<2, Bool>, Vec<bool>) {
    let (mask, shape) = tensors.ints(name);
    let real: Vec<bool> = mask.iter().map(|&value| value == 1).collect();
    let mask = Tensor::from_data(TensorData::new(real.clone(), shape), device);
    (mask, real)
}

/// Compares logits `[batch, seq, vocab]` where there is a token.
pub fn assert_real_logits(
    found: &Tensor<3>,
    real: &[bool],
    expected: &[f32],
    tolerance: f32,
    what: &str,
) {
    let [_, _, vocab] = found.dims();
    let found = host(found.clone());
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(found.iter().all(|value| value.is_finite()), "{what}");
    let rows = found.chunks_exact(vocab).zip(expected.chunks_exact(vocab));
    for (at, (found, expected)) in rows.enumerate().filter(|(at, _)| real[*at]) {
        assert_near(found, expected, tolerance, &format!("{what}, token {at}"));
    }
}

/// Sums logits with the weights of a fixture, for its gradients.
pub fn weighted<const D: usize>(logits: Tensor<D>, expected: &Tensors) -> Tensor<1> {
    let (weights, _) = expected.floats("weights");
    let weights = TensorData::new(weights, logits.dims());
    let device = logits.device();
    (logits * Tensor::<D>::from_data(weights, &device)).sum()
}

/// A batch of a model's fixture, padded on the side `right` or `left`.
pub struct Batch {
    pub ids: Tensor<2, Int>,
    pub mask: Tensor<2, Bool>,
    pub positions: Option<Tensor<2, Int>>,
    /// True for tokens that are not padding, row-major.
    pub real: Vec<bool>,
    /// -100 where there is no label.
    pub labels: Vec<Vec<i64>>,
}

impl Batch {
    pub fn of(tensors: &Tensors, side: &str, device: &Device) -> Self {
        let name = |part: &str| format!("{side}.{part}");
        let (mask, real) = mask_of(tensors, &name("attention_mask"), device);
        let (labels, shape) = tensors.ints(&name("labels"));
        Self {
            ids: tensors.ids(&name("input_ids"), device),
            mask,
            positions: (side == "left").then(|| tensors.ids(&name("position_ids"), device)),
            real,
            labels: labels.chunks_exact(shape[1]).map(<[i64]>::to_vec).collect(),
        }
    }

    pub fn logits(&self, model: &Gpt2LmHead) -> Tensor<3> {
        let (ids, mask) = (self.ids.clone(), Some(self.mask.clone()));
        model.logits(
            model
                .transformer
                .forward(ids, mask, self.positions.clone(), None),
        )
    }

    /// Compares logits `[batch, seq, vocab]` where there is a token.
    pub fn assert_logits(&self, found: &Tensor<3>, expected: &[f32], tolerance: f32, what: &str) {
        assert_real_logits(found, &self.real, expected, tolerance, what);
    }

    /// Mean cross entropy of the labels, each against the logits of the token before it.
    pub fn loss(&self, logits: Tensor<3>) -> Tensor<1> {
        let [batch, seq, vocab] = logits.dims();
        let device = logits.device();
        let mut rows = Vec::new();
        let mut targets = Vec::new();
        for (row, labels) in self.labels.iter().enumerate() {
            for (at, &label) in labels.iter().enumerate().skip(1).filter(|(_, l)| **l >= 0) {
                rows.push((row * seq + at - 1) as i64);
                targets.push(label);
            }
        }
        let count = rows.len();
        let ints = |values: Vec<i64>| {
            Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let logits = logits.reshape([batch * seq, vocab]).select(0, ints(rows));
        let log_probabilities = burn::tensor::activation::log_softmax(logits, 1);
        log_probabilities
            .gather(1, ints(targets).unsqueeze_dim(1))
            .mean()
            .neg()
    }
}

/// Gives every factor of the adapters values, since one of each two starts at zero.
pub fn fill_adapters<M: Module>(model: M) -> M {
    Fill::adapters()
        .with_start()
        .with_salt(1.0)
        .with_amplitude(0.3)
        .map(model)
}
