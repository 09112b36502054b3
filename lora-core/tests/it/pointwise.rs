//! Layer normalization and GELU by tanh against PyTorch and a finite difference.

use crate::common::{self, assert_close, fixture};
use burn::tensor::{DType, Device, Tensor, TensorData};
use lora_core::ops::{gelu_tanh, layer_norm};
use test_support::tensors::{Tensors, host};

/// The epsilon of the fixtures.
const EPSILON: f64 = 1e-3;

/// A few units in the last place of float32, at the size of the values.
const TOLERANCE: f32 = 4e-6;

fn norm_is_pytorchs<const D: usize>(fixture: &Tensors, name: &str, device: &Device) {
    let get = |part: &str| fixture.tensor::<D>(&format!("{name}.{part}"), device);
    let vector = |part: &str| fixture.tensor::<1>(&format!("{name}.{part}"), device);
    let expected = |part: &str| fixture.values(&format!("{name}.{part}"));
    for affine in [true, false] {
        let x = get("x").require_grad();
        let [gamma, beta] = ["gamma", "beta"].map(|part| {
            if affine {
                vector(part).require_grad()
            } else {
                vector(part)
            }
        });
        let y = layer_norm(x.clone(), gamma.clone(), beta.clone(), EPSILON);
        assert_close(y.clone(), &expected("y"), TOLERANCE, name);
        let grads = (y * get("dy")).sum().backward();
        // Divided by the deviation, which is √ε of a row that has none of its own.
        assert_close(x.grad(&grads).unwrap(), &expected("dx"), 1e-5, name);
        for (tensor, part) in [(gamma, "dgamma"), (beta, "dbeta")] {
            match tensor.grad(&grads) {
                Some(found) if affine => assert_close(found, &expected(part), TOLERANCE, name),
                found => assert!(found.is_none() && !affine, "{name} {part}"),
            }
        }
    }
}

#[test]
fn layer_norm_is_pytorchs() {
    let fixture = fixture("ops/layer_norm.safetensors");
    for device in common::training_devices() {
        norm_is_pytorchs::<3>(&fixture, "odd", &device);
        norm_is_pytorchs::<2>(&fixture, "one", &device);
    }
}

#[test]
fn gelu_by_tanh_is_pytorchs() {
    let fixture = fixture("ops/gelu_tanh.safetensors");
    for device in common::devices() {
        let device = device.autodiff();
        let x = fixture.tensor::<1>("x", &device).require_grad();
        let y = gelu_tanh(x.clone());
        assert_close(y.clone(), &fixture.values("y"), 1e-6, "y");
        let grads = (y * fixture.tensor::<1>("dy", &device)).sum().backward();
        assert_close(x.grad(&grads).unwrap(), &fixture.values("dx"), 2e-6, "dx");
    }
}

/// Values from a fixed formula: no two alike, both signs, no symmetry.
fn tensor<const D: usize>(
    shape: [usize; D],
    salt: f64,
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    let value = |i: usize| ((i as f64 + 1.0) * 0.7311 + salt).sin() * 1.3;
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

/// More than one piece of work, from a view that is not contiguous, in every type.
#[test]
fn every_type_has_the_values_and_gradients_of_float64() {
    let device = Device::flex().autodiff();
    let run = |dtype: DType| {
        let x = tensor([311, 9, 7], 0.1, &device, dtype)
            .swap_dims(0, 2)
            .require_grad();
        let gamma = tensor([311], 0.2, &device, dtype).require_grad();
        let beta = tensor([311], 0.3, &device, dtype).require_grad();
        let weights = tensor([7, 9, 311], 0.4, &device, dtype);
        let y = layer_norm(x.clone(), gamma.clone(), beta.clone(), EPSILON);
        let z = gelu_tanh(y.clone() * 2.0);
        let grads = (z.clone() * weights).sum().backward();
        [
            host(y),
            host(z),
            host(x.grad(&grads).unwrap()),
            host(gamma.grad(&grads).unwrap()),
            host(beta.grad(&grads).unwrap()),
        ]
    };
    let expected = run(DType::F64);
    for (dtype, tolerance) in [(DType::F32, 3e-6), (DType::F16, 2e-2), (DType::BF16, 1e-1)] {
        for (found, expected) in run(dtype).iter().zip(&expected) {
            let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (f, e) in found.iter().zip(expected) {
                assert!(
                    (f - e).abs() <= tolerance * scale,
                    "{dtype:?}: {f} is not {e}"
                );
            }
        }
    }
}

#[test]
fn gradients_equal_a_finite_difference_in_float64() {
    let shapes = [[15], [5], [5]];
    let mut salt = 0.0;
    let values = shapes.map(|shape| {
        salt += 1.0;
        let data = tensor(shape, salt, &Device::flex(), DType::F64).into_data();
        data.iter::<f64>().collect::<Vec<_>>()
    });
    common::assert_gradients_are_differences(shapes, values, |[x, gamma, beta]| {
        let weights = tensor([3, 5], 0.9, &x.device(), DType::F64);
        let y = gelu_tanh(layer_norm(x.reshape([3, 5]), gamma, beta, EPSILON));
        (y * weights).sum()
    });
}
