//! What the tests of this crate share: fixtures and comparisons.
#![allow(dead_code)] // Each test file uses a part.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::{LoadOptions, Pretrained};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

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

/// Tensors of a safetensors file.
pub struct Tensors(Vec<u8>);

impl Tensors {
    pub fn open(path: impl AsRef<Path>) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    /// The values expected of a model.
    pub fn of_model(name: &str) -> Self {
        Self::open(fixture(name).join("expected.safetensors"))
    }

    fn read<T>(&self, name: &str, read: impl Fn(&[u8]) -> T, size: usize) -> (Vec<T>, Vec<usize>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap_or_else(|_| panic!("{name}"));
        let values = view.data().chunks_exact(size).map(read).collect();
        (values, view.shape().to_vec())
    }

    pub fn names(&self) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let mut names: Vec<String> = tensors.names().into_iter().map(String::from).collect();
        names.sort();
        names
    }

    pub fn floats(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        self.read(name, |b| f32::from_le_bytes(b.try_into().unwrap()), 4)
    }

    pub fn ints(&self, name: &str) -> (Vec<i64>, Vec<usize>) {
        self.read(name, |b| i64::from_le_bytes(b.try_into().unwrap()), 8)
    }

    pub fn ids(&self, name: &str, device: &Device) -> Tensor<2, Int> {
        let (values, shape) = self.ints(name);
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

/// A batch of a model's fixture, padded on the side `right` or `left`.
pub struct Batch {
    pub ids: Tensor<2, Int>,
    pub mask: Tensor<2, Bool>,
    pub positions: Option<Tensor<2, Int>>,
    /// Which tokens are no padding, row after row.
    pub real: Vec<bool>,
    /// -100 where there is no label.
    pub labels: Vec<Vec<i64>>,
}

impl Batch {
    pub fn of(tensors: &Tensors, side: &str, device: &Device) -> Self {
        let name = |part: &str| format!("{side}.{part}");
        let (mask, shape) = tensors.ints(&name("attention_mask"));
        let real: Vec<bool> = mask.iter().map(|&value| value == 1).collect();
        let (labels, _) = tensors.ints(&name("labels"));
        Self {
            ids: tensors.ids(&name("input_ids"), device),
            mask: Tensor::from_data(TensorData::new(real.clone(), shape.clone()), device),
            positions: (side == "left").then(|| tensors.ids(&name("position_ids"), device)),
            real,
            labels: labels.chunks_exact(shape[1]).map(<[i64]>::to_vec).collect(),
        }
    }

    pub fn logits(&self, model: &Gpt2LmHead) -> Tensor<3> {
        let (ids, mask) = (self.ids.clone(), Some(self.mask.clone()));
        model.logits(model.forward_hidden(ids, mask, self.positions.clone(), None))
    }

    /// Compares logits `[batch, seq, vocab]` where there is a token.
    pub fn assert_logits(&self, found: &Tensor<3>, expected: &[f32], tolerance: f32, what: &str) {
        let [_, _, vocab] = found.dims();
        let found = host(found.clone());
        assert_eq!(found.len(), expected.len(), "{what}");
        assert!(found.iter().all(|value| value.is_finite()), "{what}");
        let rows = found.chunks_exact(vocab).zip(expected.chunks_exact(vocab));
        for (at, (found, expected)) in rows.enumerate().filter(|(at, _)| self.real[*at]) {
            assert_near(found, expected, tolerance, &format!("{what}, token {at}"));
        }
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

pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().unwrap()
}

/// Compares values, absolutely where they are small and relatively where they are large.
pub fn assert_near(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (f, e)) in found.iter().zip(expected).enumerate() {
        let close = (f - e).abs() <= tolerance * e.abs().max(1.0);
        assert!(close, "{what}[{at}]: {f} is not {e}");
    }
}

/// Row-major `[rows, columns]` to row-major `[columns, rows]`.
pub fn transpose(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let (rows, columns) = (shape[0], shape[1]);
    let column = |c: usize| (0..rows).map(move |r| values[r * columns + c]);
    (0..columns).flat_map(column).collect()
}

/// Gives every factor of the adapters values, since one of each two starts at zero.
pub fn fill_adapters<M: Module>(model: M) -> M {
    model.map(&mut Fill {
        path: Vec::new(),
        salt: 0.0,
    })
}

struct Fill {
    path: Vec<String>,
    salt: f32,
}

impl ModuleMapper for Fill {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.path.join(".").contains(".lora.") {
            return param;
        }
        self.salt += 1.0;
        let salt = self.salt;
        param.map(|old| {
            let value = |i: usize| (i as f32 * 0.7 + salt).sin() * 0.3;
            let values = (0..old.shape().num_elements()).map(value).collect();
            Tensor::from_data(TensorData::new(values, old.shape()), &old.device())
        })
    }
}
