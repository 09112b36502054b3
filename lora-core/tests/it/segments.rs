//! Attention within the texts that a row is packed of: against PyTorch, and against each text alone.

use crate::common::{self, assert_close, fixture};
use burn::tensor::{DType, Device, Tensor, TensorData};
use lora_core::Dropout;
use lora_core::ops::{ScaledDotProduct, Segments};
use test_support::process::passed_alone;
use test_support::tensors::host;

const TOLERANCE: f32 = 3e-6;

/// `[batch, heads, seq, d]` as `[batch, seq, heads · d]`.
fn join(by_head: Tensor<4>) -> Tensor<3> {
    let [batch, heads, seq, d] = by_head.dims();
    by_head.swap_dims(1, 2).reshape([batch, seq, heads * d])
}

#[test]
fn values_and_gradients_are_pytorchs() {
    let fixture = fixture("ops/attention.safetensors");
    for device in common::training_devices() {
        let get = |part: &str| fixture.tensor::<4>(&format!("packed.{part}"), &device);
        let expected = |part: &str| fixture.values(&format!("packed.{part}"));
        let scale = f64::from(expected("scale")[0]);
        let attention = ScaledDotProduct::new(scale)
            .causal()
            .within(Some(Segments::new(vec![4, 1, 7, 2])));

        let [q, k, v] = ["q", "k", "v"].map(|part| get(part).require_grad());
        let output = attention.forward(q.clone(), k.clone(), v.clone());
        assert_close(output.clone(), &expected("out"), TOLERANCE, "out");
        let grads = (output * get("dout")).sum().backward();
        for (tensor, part) in [(&q, "dq"), (&k, "dk"), (&v, "dv")] {
            let found = tensor.grad(&grads).unwrap();
            assert_close(found, &expected(part), TOLERANCE, part);
        }

        let fused = Tensor::cat(["q", "k", "v"].map(|part| join(get(part))).to_vec(), 2);
        let fused = fused.require_grad();
        let output = attention.forward_fused(fused.clone(), 3);
        assert_close(output.clone(), &host(join(get("out"))), TOLERANCE, "fused");
        let grads = (output * join(get("dout"))).sum().backward();
        let expected = Tensor::cat(["dq", "dk", "dv"].map(|part| join(get(part))).to_vec(), 2);
        let found = fused.grad(&grads).unwrap();
        assert_close(found, &host(expected), TOLERANCE, "gradient of fused");
    }
}

/// Values from a fixed formula: no two alike, both signs, no symmetry.
fn tensor(shape: [usize; 4], salt: f64, device: &Device, dtype: DType) -> Tensor<4> {
    let value = |i: usize| ((i as f64 + 1.0) * 0.7311 + salt).sin() * 1.3;
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

/// Output and gradients, summed up to whole rows again where texts are attended to alone.
fn run(
    attend: impl Fn([Tensor<4>; 3]) -> Tensor<4>,
    tokens: usize,
    device: &Device,
    dtype: DType,
) -> [Vec<f32>; 4] {
    let inputs = [0.1, 0.2, 0.3].map(|salt| tensor([1, 3, tokens, 5], salt, device, dtype));
    let inputs = inputs.map(Tensor::require_grad);
    let output = attend(inputs.clone());
    let weights = tensor([1, 3, tokens, 5], 0.4, device, dtype);
    let grads = (output.clone() * weights).sum().backward();
    let [q, k, v] = inputs.map(|input| host(input.grad(&grads).unwrap()));
    [host(output), q, k, v]
}

fn assert_like(found: &[Vec<f32>; 4], expected: &[Vec<f32>; 4], tolerance: f32, what: &str) {
    for (part, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= tolerance, "{what} {part}: {f} is not {e}");
        }
    }
}

/// A text of more than one block of queries among short ones.
const LENGTHS: [usize; 5] = [3, 1, 150, 64, 2];

#[test]
fn each_text_is_attended_to_as_if_it_were_alone() {
    let tokens = LENGTHS.iter().sum();
    for device in common::devices() {
        let device = device.autodiff();
        for causal in [false, true] {
            let attention = if causal {
                ScaledDotProduct::new(0.7).causal()
            } else {
                ScaledDotProduct::new(0.7)
            };
            let segments = Segments::new(LENGTHS.to_vec());
            let alone = |inputs: [Tensor<4>; 3]| {
                let outputs = segments.ranges().map(|range| {
                    let part = |all: &Tensor<4>| all.clone().narrow(2, range.start, range.len());
                    let [q, k, v] = inputs.each_ref().map(part);
                    attention.forward(q, k, v)
                });
                Tensor::cat(outputs.collect(), 2)
            };
            let packed = |[q, k, v]: [Tensor<4>; 3]| {
                let attention = attention.clone().within(Some(segments.clone()));
                attention.forward(q, k, v)
            };
            let expected = run(alone, tokens, &device, DType::F64);
            let found = run(packed, tokens, &device, DType::F64);
            assert_like(&found, &expected, 1e-6, "f64");
            let found = run(packed, tokens, &device, DType::F32);
            assert_like(&found, &expected, 2e-5, "f32");
        }
    }
    // Half precision rounds inputs and weights.
    let device = Device::flex().autodiff();
    let segments = Segments::new(vec![4, 1, 3]);
    let attention = ScaledDotProduct::new(0.7).causal().within(Some(segments));
    let attend = |[q, k, v]: [Tensor<4>; 3]| attention.forward(q, k, v);
    let expected = run(attend, 8, &device, DType::F64);
    for (dtype, tolerance) in [(DType::F16, 1e-2), (DType::BF16, 8e-2)] {
        let found = run(attend, 8, &device, dtype);
        assert_like(&found, &expected, tolerance, &format!("{dtype:?}"));
    }
}

/// The fused form, in float32, drops what the composed one, in float64, drops; and texts of one length each drop others.
#[test]
fn each_text_drops_its_own_weights_in_both_forms() {
    if passed_alone("segments::each_text_drops_its_own_weights_in_both_forms") {
        return;
    }
    const N: usize = 70;
    let weights = |dtype: DType, device: &Device| {
        let attention = ScaledDotProduct::new(0.5)
            .with_dropout(&Dropout::new(0.3))
            .within(Some(Segments::new(vec![N, N])));
        lora_core::ops::seed(device, 9);
        let [q, k] = [0.1, 0.2].map(|salt| tensor([1, 2, 2 * N, 4], salt, device, dtype));
        // Each key's value is its unit vector, so that the output is the weights themselves.
        let v = Tensor::<2>::eye(N, device).cast(dtype).unsqueeze::<4>();
        let v = v.repeat_dim(2, 2).repeat_dim(1, 2); // [1, 2, 2 * N, N]
        let inputs = [q, k, v].map(Tensor::require_grad);
        let [q, k, v] = inputs.clone();
        let output = attention.forward(q, k, v);
        let loss = (output.clone() * tensor([1, 2, 2 * N, N], 0.3, device, dtype)).sum();
        let grads = loss.backward();
        let gradients = inputs.map(|input| host(input.grad(&grads).unwrap()));
        (host(output), gradients)
    };
    for device in common::devices() {
        let device = device.autodiff();
        let (kept, expected) = weights(DType::F64, &device);
        let (found, gradients) = weights(DType::F32, &device);
        for (f, e) in found.iter().zip(&kept) {
            assert!((f - e).abs() < 1e-6, "weight {f} is not {e}");
        }
        for (found, expected) in gradients.iter().zip(&expected) {
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() < 1e-5 * (1.0 + e.abs()), "{f} is not {e}");
            }
        }
        let dropped: Vec<bool> = kept.iter().map(|&weight| weight == 0.0).collect();
        let count = dropped.iter().filter(|&&dropped| dropped).count();
        let share = count as f64 / dropped.len() as f64;
        assert!((share - 0.3).abs() < 0.02, "{share}");
        let (first, second) = dropped[..2 * N * N].split_at(N * N);
        let alike = first.iter().zip(second).filter(|(a, b)| a == b).count();
        // Of two independent draws 0.7² + 0.3² are alike.
        let alike = alike as f64 / (N * N) as f64;
        assert!((alike - 0.58).abs() < 0.03, "{alike}");
    }
}

#[test]
fn a_text_changes_nothing_of_another() {
    let device = Device::flex();
    let attention = ScaledDotProduct::new(0.5)
        .causal()
        .within(Some(Segments::new(vec![3, 4])));
    let [q, k, v] = [0.1, 0.2, 0.3].map(|salt| tensor([1, 2, 7, 4], salt, &device, DType::F32));
    let first =
        |k: Tensor<4>, v: Tensor<4>| host(attention.forward(q.clone(), k, v).narrow(2, 3, 4));
    let expected = first(k.clone(), v.clone());
    let huge = Tensor::<4>::full([1, 2, 3, 4], 1e30, &device);
    let replaced = |all: Tensor<4>| Tensor::cat(vec![huge.clone(), all.narrow(2, 3, 4)], 2);
    assert_eq!(first(replaced(k), replaced(v)), expected);
}

#[test]
#[should_panic(
    expected = "texts of [2, 2] tokens are packed into one row without a bias, not 1 of 5"
)]
fn texts_must_fill_the_row() {
    let x = tensor([1, 2, 5, 4], 0.1, &Device::flex(), DType::F32);
    let attention = ScaledDotProduct::new(1.0).within(Some(Segments::new(vec![2, 2])));
    attention.forward(x.clone(), x.clone(), x);
}

#[test]
#[should_panic(expected = "not 2 of 4 queries")]
fn texts_lie_in_one_row() {
    let x = tensor([2, 2, 4, 4], 0.1, &Device::flex(), DType::F32);
    let attention = ScaledDotProduct::new(1.0).within(Some(Segments::new(vec![2, 2])));
    attention.forward(x.clone(), x.clone(), x);
}

#[test]
#[should_panic(expected = "none without a token")]
fn no_text_is_empty() {
    Segments::new(vec![2, 0]);
}
