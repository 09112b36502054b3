//! Operations on operands of different float types.

use super::{one_at_a_time, others, wave};
use crate::common::tolerance;
use burn::tensor::{DType, Device, Int, Tensor};
use lora_core::ops::{
    CrossEntropy, ScaledDotProduct, head_loss, layer_norm, linear, lora_linear, multiply,
};
use lora_train::device;
use test_support::tensors::host;

/// A result of an operation, as values in f32, and its type.
struct Found {
    name: String,
    values: Vec<f32>,
    dtype: DType,
}

/// Results of the operations on one device.
struct Results {
    device: Device,
    /// Computes on f32 tensors with the same values.
    in_f32: bool,
    found: Vec<Found>,
}

impl Results {
    fn new(device: Device, in_f32: bool) -> Self {
        Self {
            device: device.autodiff(),
            in_f32,
            found: Vec::new(),
        }
    }

    /// Returns values that are exact in f16, in a type, that train.
    fn operand<const D: usize>(&self, shape: [usize; D], salt: f32, dtype: DType) -> Tensor<D> {
        // Rounded on the host: a cast on a device may round in another direction.
        let values = host(
            wave(shape, salt, &Device::flex().autodiff())
                .cast(DType::F16)
                .cast(DType::F32),
        );
        let dtype = if self.in_f32 { DType::F32 } else { dtype };
        let data = burn::tensor::TensorData::new(values, shape);
        Tensor::<D>::from_data(data, (&self.device, DType::F32))
            .cast(dtype)
            .detach()
            .require_grad()
    }

    fn push<const D: usize>(&mut self, name: String, tensor: Tensor<D>) {
        let dtype = tensor.dtype();
        let values = host(tensor.cast(DType::F32));
        self.found.push(Found {
            name,
            values,
            dtype,
        });
    }

    /// Computes an output, and the gradients of its operands.
    fn check<const D: usize, const N: usize, const M: usize>(
        &mut self,
        name: &str,
        output: Tensor<D>,
        matrices: [&Tensor<N>; M],
    ) {
        let grads = output.clone().cast(DType::F32).square().sum().backward();
        self.push(format!("{name}: output"), output);
        for (index, matrix) in matrices.into_iter().enumerate() {
            let gradient = matrix.grad(&grads).unwrap();
            self.push(format!("{name}: gradient {index}"), gradient);
        }
    }
}

/// Computes each operation with activations in one type, and weights in the other.
fn results(device: Device, [x_dtype, w_dtype]: [DType; 2], in_f32: bool) -> Vec<Found> {
    let mut all = Results::new(device, in_f32);
    let x = all.operand([3, 5, 8], 0.1, x_dtype);
    let w = all.operand([8, 6], 0.2, w_dtype);
    let bias = all.operand([6], 0.3, w_dtype);
    let product = multiply(x.clone().reshape([15, 8]), w.clone());
    all.check("product", product, [&w]);
    all.check(
        "layer without bias",
        linear(x.clone(), w.clone(), None),
        [&w],
    );
    let y = linear(x.clone(), w.clone(), Some(bias.clone()));
    all.check("layer", y, [&w]);
    let y = linear(x.clone(), w.clone(), Some(bias.clone()));
    all.check("layer, input", y, [&x]);

    let (a, b) = (
        all.operand([8, 3], 0.4, w_dtype),
        all.operand([3, 6], 0.5, w_dtype),
    );
    let adapted = || {
        lora_linear(
            x.clone(),
            x.clone(),
            w.clone(),
            a.clone(),
            b.clone(),
            Some(bias.clone()),
            0.7,
        )
    };
    all.check("adapted layer", adapted(), [&a, &b]);
    all.check("adapted layer, input", adapted(), [&x]);

    let query = all.operand([2, 2, 4, 5], 0.6, x_dtype);
    let [key, value] = [0.7, 0.8].map(|salt| all.operand([2, 2, 4, 5], salt, w_dtype));
    let attention = ScaledDotProduct::new(0.6).causal();
    let output = attention.forward(query.clone(), key.clone(), value.clone());
    all.check("attention", output, [&query, &key, &value]);

    let hidden = all.operand([7, 8], 0.9, x_dtype);
    let targets = Tensor::<1, Int>::from_ints([0, 5, -1, 2, 2, 4, 1], &all.device);
    let loss = head_loss(hidden.clone(), w.clone(), targets, &CrossEntropy::default()).loss;
    all.check("loss of a head", loss, [&hidden, &w]);

    let gamma = all.operand([8], 1.0, w_dtype);
    let beta = all.operand([8], 1.1, w_dtype);
    let y = layer_norm(hidden.clone(), gamma.clone(), beta.clone(), 1e-5);
    all.check("layer norm", y, [&gamma, &beta]);
    all.found
}

#[test]
fn operands_of_different_types_are_cast() {
    let _turn = one_at_a_time();
    let mut devices = vec![Device::flex()];
    devices.extend(others().into_iter().map(|name| device::open(name).unwrap()));
    for device in devices {
        if !device.supports_dtype(DType::F16) {
            eprintln!("{device:?} has no f16: nothing to cast");
            continue;
        }
        for types in [[DType::F32, DType::F16], [DType::F16, DType::F32]] {
            let expected = results(Device::flex(), types, true);
            let found = results(device.clone(), types, false);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                let what = format!("{device:?}, {types:?}, {}", found.name);
                let scale = expected.values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                // Activations in f16 round each result and each gradient to 11 bits, one after the other; weights in f16 round
                // their own gradient only.
                let rounded = types[0] == DType::F16 || found.dtype == DType::F16;
                let of_f32 = if rounded { 4e-3 } else { 2e-5 };
                let allowed = tolerance(&device, of_f32) * f64::from(scale);
                assert_eq!(found.values.len(), expected.values.len(), "{what}");
                for (f, e) in found.values.iter().zip(&expected.values) {
                    assert!(
                        f64::from((f - e).abs()) <= allowed,
                        "{what}: {f} is not {e}"
                    );
                }
            }
            // Results have the type of the activations, gradients that of their operand; a bare product the wider one.
            let dtypes = |name: &str| -> Vec<DType> {
                let of = |found: &&Found| found.name.starts_with(&format!("{name}:"));
                found.iter().filter(of).map(|found| found.dtype).collect()
            };
            let [x, w] = types;
            assert_eq!(dtypes("product"), [DType::F32, w]);
            assert_eq!(dtypes("layer without bias")[1..], [w]);
            assert_eq!(dtypes("layer"), [x, w]);
            assert_eq!(dtypes("layer, input"), [x, x]);
            assert_eq!(dtypes("adapted layer"), [x, w, w]);
            assert_eq!(dtypes("adapted layer, input"), [x, x]);
            assert_eq!(dtypes("attention"), [x, x, w, w]);
            assert_eq!(dtypes("loss of a head"), [DType::F32, x, w]);
            assert_eq!(dtypes("layer norm"), [x, w, w]);
        }
    }
}
