//! The adapted projection against a finite difference in float64 and against PyTorch.

use crate::common::{self, assert_close, fixture};
use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use lora_core::ops::lora_linear;
use test_support::tensors::{Tensors, host};

/// Values in float64 from a fixed formula: no two alike, both signs, no symmetry.
fn values(shape: [usize; 2], salt: f64) -> Vec<f64> {
    (0..shape[0] * shape[1])
        .map(|i| ((i as f64 + 1.0) * 0.7311 + salt).sin() * 1.3)
        .collect()
}

fn tensor(values: &[f64], shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), shape),
        (device, DType::F64),
    )
}

/// `Σ t · (x W + s (x' A) B)²/2`: a loss whose gradient is different at every element.
fn loss(parts: &[(Vec<f64>, [usize; 2]); 6], scale: f64, device: &Device) -> f64 {
    let [x, adapter_x, w, a, b, t] = parts.each_ref().map(|(v, s)| tensor(v, *s, device));
    let y = lora_linear(x, adapter_x, w, a, b, None, scale);
    let sum = (y.square() * t).sum() * 0.5;
    sum.into_data().try_to_vec::<f64>().unwrap()[0]
}

#[test]
fn gradients_equal_a_finite_difference_in_float64() {
    let (d_in, d_out, rank, rows, scale) = (5, 7, 3, 4, 1.7);
    let shapes = [
        [rows, d_in],
        [rows, d_in],
        [d_in, d_out],
        [d_in, rank],
        [rank, d_out],
        [rows, d_out],
    ];
    let mut parts: [(Vec<f64>, [usize; 2]); 6] =
        std::array::from_fn(|i| (values(shapes[i], i as f64), shapes[i]));
    let device = Device::flex().autodiff();
    let mut tensors = parts.each_ref().map(|(v, s)| tensor(v, *s, &device));
    for index in [0, 1, 3, 4] {
        tensors[index] = tensors[index].clone().require_grad();
    }
    let [x, adapter_x, w, a, b, t] = tensors.clone();
    let y = lora_linear(x, adapter_x, w, a, b, None, scale);
    let grads = ((y.square() * t).sum() * 0.5).backward();
    assert!(
        tensors[2].grad(&grads).is_none(),
        "the frozen weight gets no gradient"
    );

    let step = 1e-5;
    for index in [0, 1, 3, 4] {
        let data = tensors[index].grad(&grads).unwrap().into_data();
        let analytic = data.try_to_vec::<f64>().unwrap();
        for (element, &gradient) in analytic.iter().enumerate() {
            let original = parts[index].0[element];
            let mut at = |value: f64| {
                parts[index].0[element] = value;
                loss(&parts, scale, &Device::flex())
            };
            let numeric = (at(original + step) - at(original - step)) / (2.0 * step);
            at(original);
            // The loss is quadratic in each input, so only rounding is left: about 1e-16 / 1e-5.
            let error = (numeric - gradient).abs();
            assert!(
                error < 1e-7 * (1.0 + gradient.abs()),
                "{index}.{element}: {numeric} {gradient}"
            );
        }
    }
}

#[test]
fn values_and_gradients_equal_pytorchs() {
    let fixture = fixture("lora_linear.safetensors");
    for device in common::devices() {
        let device = device.autodiff();
        check::<2>(&fixture, "linear2", &device);
        check::<3>(&fixture, "linear3", &device);
    }
}

/// Float32 sums of at most a dozen products of values around one.
const TOLERANCE: f32 = 2e-5;

fn check<const D: usize>(fixture: &Tensors, name: &str, device: &Device) {
    let get2 = |part: &str| fixture.tensor::<2>(&format!("{name}.{part}"), device);
    let x = fixture
        .tensor::<D>(&format!("{name}.x"), device)
        .require_grad();
    let a = get2("a").require_grad();
    let b = get2("b").require_grad();
    let bias = fixture.tensor::<1>(&format!("{name}.bias"), device);
    let dy = fixture.tensor::<D>(&format!("{name}.dy"), device);
    let y = lora_linear(
        x.clone(),
        x.clone(),
        get2("w"),
        a.clone(),
        b.clone(),
        Some(bias),
        5.0 / 3.0,
    );
    assert_close(
        y.clone(),
        &fixture.values(&format!("{name}.y")),
        TOLERANCE,
        "y",
    );
    let grads = (y * dy).sum().backward();
    let expected = |part: &str| fixture.values(&format!("{name}.{part}"));
    assert_close(x.grad(&grads).unwrap(), &expected("dx"), TOLERANCE, "dx");
    assert_close(a.grad(&grads).unwrap(), &expected("da"), TOLERANCE, "da");
    assert_close(b.grad(&grads).unwrap(), &expected("db"), TOLERANCE, "db");
}

#[test]
fn an_untracked_input_gives_the_factors_their_gradients() {
    // The first adapted layer: nothing below it trains, x has no gradient.
    let device = Device::flex().autodiff();
    let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Default, &device);
    let (x, w) = (random([6, 4]), random([4, 5]));
    let (a, b) = (random([4, 2]).require_grad(), random([2, 5]).require_grad());
    let fused = lora_linear(
        x.clone(),
        x.clone(),
        w.clone(),
        a.clone(),
        b.clone(),
        None,
        0.7,
    );
    let fused = fused.square().sum().backward();
    let composed = x.clone().matmul(w) + x.matmul(a.clone()).matmul(b.clone()) * 0.7;
    let composed = composed.square().sum().backward();
    for factor in [a, b] {
        let expected = factor.grad(&composed).unwrap().into_data();
        let expected = expected.try_to_vec::<f32>().unwrap();
        assert_close(factor.grad(&fused).unwrap(), &expected, 1e-4, "factor");
    }
}

#[test]
fn gradient_checkpointing_changes_nothing() {
    let fixture = fixture("lora_linear.safetensors");
    let device = Device::flex().autodiff().gradient_checkpointing();
    check::<3>(&fixture, "linear3", &device);
}

/// Compares with Burn's own operation, which every backend has.
#[test]
fn gelu_has_the_values_and_gradients_of_burns() {
    let device = Device::flex().autodiff();
    let run = |gelu: fn(Tensor<3>) -> Tensor<3>| {
        // Odd sizes, more than one piece of work, and a view that is not contiguous.
        let ids = Tensor::<1, burn::tensor::Int>::arange(0..3 * 7 * 1601, &device);
        let x = (ids.float() * 7e-4 - 11.5).reshape([3, 7, 1601]);
        let x = x.swap_dims(0, 2).require_grad(); // [1601, 7, 3]
        let weights = (x.clone().detach() * 1.7).sin();
        let y = gelu(x.clone());
        let grads = (y.clone() * weights).sum().backward();
        (y, x.grad(&grads).unwrap())
    };
    let (ours, our_gradient) = run(lora_core::ops::gelu);
    let (burns, burns_gradient) = run(burn::tensor::activation::gelu);
    assert_close(ours, &host(burns), 1e-6, "values");
    assert_close(our_gradient, &host(burns_gradient), 1e-6, "gradients");
}

/// Compares with Burn's own operation for rows of odd lengths, of one number, and longer than a piece of work.
#[test]
fn softmax_has_the_values_and_gradients_of_burns() {
    let device = Device::flex().autodiff();
    for [rows, width] in [[5, 53], [7, 1], [3, 20_001], [1, 16]] {
        let run = |ours: bool| {
            let ids = Tensor::<1, burn::tensor::Int>::arange(0..(2 * rows * width) as i64, &device);
            let x = (ids.float() * 0.37).sin() * 6.0;
            let x = x.reshape([2, rows, width]).require_grad();
            let weights = (x.clone().detach() * 1.7).cos();
            let y = if ours {
                lora_core::ops::softmax(x.clone())
            } else {
                burn::tensor::activation::softmax(x.clone(), 2)
            };
            let grads = (y.clone() * weights).sum().backward();
            (y, x.grad(&grads).unwrap())
        };
        let (ours, our_gradient) = run(true);
        let (burns, burns_gradient) = run(false);
        assert_close(ours, &host(burns), 1e-6, "values");
        assert_close(our_gradient, &host(burns_gradient), 1e-6, "gradients");
    }
}
