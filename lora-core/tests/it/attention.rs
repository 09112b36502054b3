//! Scaled dot-product attention against PyTorch, against its own formula, and against a finite difference.

use crate::common::{self, assert_close, fixture};
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use lora_core::Dropout;
use lora_core::ops::ScaledDotProduct;
use test_support::process::passed_alone;
use test_support::tensors::host;

/// Float32 sums of a few dozen terms of the size of one.
const TOLERANCE: f32 = 3e-6;

struct Case {
    name: &'static str,
    causal: bool,
    /// True if the bias has a gradient; `None` without a bias.
    bias: Option<bool>,
}

const CASES: [Case; 5] = [
    Case {
        name: "causal",
        causal: true,
        bias: Some(false),
    },
    Case {
        name: "past",
        causal: true,
        bias: None,
    },
    Case {
        name: "open",
        causal: false,
        bias: Some(false),
    },
    Case {
        name: "full",
        causal: false,
        bias: Some(true),
    },
    Case {
        name: "one",
        causal: true,
        bias: None,
    },
];

#[test]
fn values_and_gradients_are_pytorchs() {
    let fixture = fixture("ops/attention.safetensors");
    for device in common::training_devices() {
        for Case { name, causal, bias } in CASES {
            let get = |part: &str| fixture.tensor::<4>(&format!("{name}.{part}"), &device);
            let expected = |part: &str| fixture.values(&format!("{name}.{part}"));
            let [q, k, v] = ["q", "k", "v"].map(|part| get(part).require_grad());
            let bias = bias.map(|grad| {
                if grad {
                    get("bias").require_grad()
                } else {
                    get("bias")
                }
            });
            let mut attention = ScaledDotProduct::new(f64::from(expected("scale")[0]));
            if causal {
                attention = attention.causal();
            }
            let attention = attention.with_bias(bias.clone());
            let output = attention.forward(q.clone(), k.clone(), v.clone());
            assert_close(output.clone(), &expected("out"), TOLERANCE, name);
            let grads = (output * get("dout")).sum().backward();
            for (tensor, part) in [(q.clone(), "dq"), (k.clone(), "dk"), (v.clone(), "dv")] {
                let what = format!("{name} {part}");
                assert_close(
                    tensor.grad(&grads).unwrap(),
                    &expected(part),
                    TOLERANCE,
                    &what,
                );
            }
            match bias {
                Some(bias) if name == "full" => {
                    assert_close(
                        bias.grad(&grads).unwrap(),
                        &expected("dbias"),
                        TOLERANCE,
                        name,
                    );
                }
                _ => {}
            }
            if q.dims() != v.dims() {
                continue;
            }
            // All three side by side, from one projection.
            let [batch, heads, seq, d] = q.dims();
            let fused = Tensor::cat([q, k, v].map(|part| part.detach()).to_vec(), 1);
            let fused = fused.swap_dims(1, 2).reshape([batch, seq, 3 * heads * d]);
            let fused = fused.detach().require_grad();
            let attention = attention.with_bias(attention_bias(&get, name));
            let output = attention.forward_fused(fused.clone(), heads);
            let joined = |part: Tensor<4>| part.swap_dims(1, 2).reshape([batch, seq, heads * d]);
            assert_close(output.clone(), &host(joined(get("out"))), TOLERANCE, name);
            let grads = (output * joined(get("dout"))).sum().backward();
            let expected = Tensor::cat(["dq", "dk", "dv"].map(get).to_vec(), 1);
            let expected = expected
                .swap_dims(1, 2)
                .reshape([batch, seq, 3 * heads * d]);
            assert_close(
                fused.grad(&grads).unwrap(),
                &host(expected),
                TOLERANCE,
                name,
            );
        }
    }
}

fn attention_bias(get: &impl Fn(&str) -> Tensor<4>, name: &str) -> Option<Tensor<4>> {
    CASES
        .iter()
        .any(|case| case.name == name && case.bias.is_some())
        .then(|| get("bias"))
}

/// Values from a fixed formula: no two alike, both signs, no symmetry.
fn tensor(shape: [usize; 4], salt: f64, device: &Device, dtype: DType) -> Tensor<4> {
    let value = |i: usize| ((i as f64 + 1.0) * 0.7311 + salt).sin() * 1.3;
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

/// Output and gradients, with a bias that trains, for each head or one for all.
fn run(
    attention: impl Fn([Tensor<4>; 3], Tensor<4>) -> Tensor<4>,
    [queries, keys]: [usize; 2],
    heads_of_bias: usize,
    device: &Device,
    dtype: DType,
) -> [Vec<f32>; 5] {
    let tensor = |shape, salt| tensor(shape, salt, device, dtype).require_grad();
    let inputs = [
        tensor([2, 3, queries, 5], 0.1),
        tensor([2, 3, keys, 5], 0.2),
        tensor([2, 3, keys, 4], 0.3),
    ];
    let bias = tensor([2, heads_of_bias, queries, keys], 0.4);
    let output = attention(inputs.clone(), bias.clone());
    let grads = (output.clone() * tensor([2, 3, queries, 4], 0.5).detach())
        .sum()
        .backward();
    let [q, k, v] = inputs.map(|input| host(input.grad(&grads).unwrap()));
    [host(output), q, k, v, host(bias.grad(&grads).unwrap())]
}

fn assert_all_close(found: &[Vec<f32>; 5], expected: &[Vec<f32>; 5], tolerance: f32, what: &str) {
    for (part, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len());
        let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (f, e) in found.iter().zip(expected) {
            assert!(
                (f - e).abs() <= tolerance * scale,
                "{what} {part}: {f} is not {e}"
            );
        }
    }
}

/// More than one block of queries, a last one that is not full, in every type.
#[test]
fn many_queries_are_attended_as_in_float64() {
    for device in common::devices() {
        let device = device.autodiff();
        for (sizes, heads, causal) in [
            ([150, 150], 3, true),
            ([70, 131], 1, true),
            ([65, 40], 3, false),
        ] {
            let fused = |[q, k, v]: [Tensor<4>; 3], bias| {
                let attention = ScaledDotProduct::new(0.7).with_bias(Some(bias));
                let attention = if causal {
                    attention.causal()
                } else {
                    attention
                };
                attention.forward(q, k, v)
            };
            let plain = |[q, k, v]: [Tensor<4>; 3], bias: Tensor<4>| {
                let [queries, keys] = sizes;
                let scores = q.matmul(k.swap_dims(2, 3)) * 0.7 + bias;
                let place = |count: usize| Tensor::<1, Int>::arange(0..count as i64, &device);
                let last =
                    (place(queries) + (keys - queries.min(keys)) as i64).reshape([queries, 1]);
                let behind = place(keys).reshape([1, keys]).greater(last);
                let scores = if causal {
                    scores.mask_fill(behind.unsqueeze(), f32::NEG_INFINITY)
                } else {
                    scores
                };
                softmax(scores, 3).matmul(v)
            };
            let expected = run(plain, sizes, heads, &device, DType::F64);
            let found = run(fused, sizes, heads, &device, DType::F64);
            assert_all_close(&found, &expected, 1e-6, "f64");
            let found = run(fused, sizes, heads, &device, DType::F32);
            assert_all_close(&found, &expected, 5e-6, "f32");
        }
    }
    // Half precision rounds inputs and weights.
    let device = Device::flex().autodiff();
    let attend = |[q, k, v]: [Tensor<4>; 3], bias| {
        ScaledDotProduct::new(0.7)
            .with_bias(Some(bias))
            .causal()
            .forward(q, k, v)
    };
    let expected = run(attend, [9, 9], 3, &device, DType::F64);
    for (dtype, tolerance) in [(DType::F16, 4e-3), (DType::BF16, 4e-2)] {
        let found = run(attend, [9, 9], 3, &device, dtype);
        assert_all_close(&found, &expected, tolerance, &format!("{dtype:?}"));
    }
}

/// The weights that were kept, found by attending to the unit vectors: with a mask M, `(P ∘ M) I`.
#[test]
fn what_is_dropped_forwards_is_dropped_backwards() {
    if passed_alone("attention::what_is_dropped_forwards_is_dropped_backwards") {
        return;
    }
    const N: usize = 70;
    for device in common::devices() {
        let device = device.autodiff();
        let attention = ScaledDotProduct::new(0.5)
            .causal()
            .with_dropout(&Dropout::new(0.3));
        let run = |dtype: DType| {
            device.seed(9);
            let [q, k] = [0.1, 0.2].map(|salt| tensor([2, 2, N, 4], salt, &device, dtype));
            let v = Tensor::<2>::eye(N, &device).cast(dtype).unsqueeze::<4>();
            let v = v.expand([2, 2, N, N]) * 1.0;
            let (q, k, v) = (q.require_grad(), k.require_grad(), v.require_grad());
            let output = attention.forward(q.clone(), k.clone(), v.clone());
            let weights = tensor([2, 2, N, N], 0.3, &device, dtype);
            let grads = (output.clone() * weights).sum().backward();
            [
                output,
                q.grad(&grads).unwrap(),
                k.grad(&grads).unwrap(),
                v.grad(&grads).unwrap(),
            ]
            .map(|tensor| tensor.cast(DType::F64).into_data())
        };
        let found = run(DType::F64);
        // The kept weights, by which the rest follows from Burn's own operations.
        let kept = Tensor::<4>::from_data(found[0].clone(), (&device, DType::F64));
        let zeros = found[0]
            .iter::<f64>()
            .filter(|&weight| weight == 0.0)
            .count();
        let seen = 4 * N * (N + 1) / 2;
        let dropped = zeros - (4 * N * N - seen);
        // Four standard deviations.
        let expected = 0.3 * seen as f64;
        assert!(
            (dropped as f64 - expected).abs() < 4.0 * (expected * 0.7).sqrt(),
            "{dropped}"
        );
        let mask = kept.greater_elem(0.0).float().cast(DType::F64) * (1.0 / 0.7);
        let [q, k] = [0.1, 0.2].map(|salt| tensor([2, 2, N, 4], salt, &device, DType::F64));
        let (q, k) = (q.require_grad(), k.require_grad());
        let scores = q.clone().matmul(k.clone().swap_dims(2, 3)) * 0.5;
        let visible = Tensor::<2>::ones([N, N], &device).tril(0).unsqueeze::<4>();
        let scores = scores.mask_fill(visible.equal_elem(0.0), f32::NEG_INFINITY);
        let output = softmax(scores, 3) * mask;
        let weights = tensor([2, 2, N, N], 0.3, &device, DType::F64);
        let grads = (output.clone() * weights.clone()).sum().backward();
        let dv = output.clone().detach().swap_dims(2, 3).matmul(weights);
        let expected = [output, q.grad(&grads).unwrap(), k.grad(&grads).unwrap(), dv]
            .map(|tensor| tensor.into_data());
        for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-5)] {
            for (found, expected) in run(dtype).iter().zip(&expected) {
                for (f, e) in found.iter::<f64>().zip(expected.iter::<f64>()) {
                    assert!(
                        (f - e).abs() < tolerance * (1.0 + e.abs()),
                        "{dtype:?}: {f} {e}"
                    );
                }
            }
        }
    }
}

#[test]
fn without_autodiff_nothing_is_dropped() {
    let device = Device::flex();
    let [q, k, v] = [0.1, 0.2, 0.3].map(|salt| tensor([1, 2, 5, 4], salt, &device, DType::F32));
    let attend = |attention: ScaledDotProduct| {
        attention
            .forward(q.clone(), k.clone(), v.clone())
            .into_data()
    };
    let dropout = Dropout::new(0.5);
    assert_eq!(
        attend(ScaledDotProduct::new(1.0)),
        attend(ScaledDotProduct::new(1.0).with_dropout(&dropout))
    );
}

#[test]
fn gradients_equal_a_finite_difference_in_float64() {
    let shapes = [[1, 2, 3, 2], [1, 2, 4, 2], [1, 2, 4, 3], [1, 1, 1, 4]];
    let values = shapes.map(|shape| {
        let data = tensor(shape, shape[2] as f64, &Device::flex(), DType::F64).into_data();
        data.iter::<f64>().collect::<Vec<_>>()
    });
    common::assert_gradients_are_differences(shapes, values, |[q, k, v, bias]| {
        let weights = tensor([1, 2, 3, 3], 0.9, &q.device(), DType::F64);
        let attention = ScaledDotProduct::new(0.8).causal().with_bias(Some(bias));
        (attention.forward(q, k, v).square() * weights).sum()
    });
}

#[test]
#[should_panic(expected = "3 causal queries of 2 keys")]
fn causal_attention_needs_a_key_for_each_query() {
    let tensor = |shape| Tensor::<4>::ones(shape, &Device::flex());
    let attention = ScaledDotProduct::new(1.0).causal();
    attention.forward(
        tensor([1, 1, 3, 4]),
        tensor([1, 1, 2, 4]),
        tensor([1, 1, 2, 4]),
    );
}

#[test]
#[should_panic(expected = "a bias of [1, 1, 1, 3] for scores of [1, 1, 2, 2]")]
fn a_bias_of_another_shape_is_refused() {
    let tensor = |shape| Tensor::<4>::ones(shape, &Device::flex());
    let attention = ScaledDotProduct::new(1.0).with_bias(Some(tensor([1, 1, 1, 3])));
    attention.forward(
        tensor([1, 1, 2, 4]),
        tensor([1, 1, 2, 4]),
        tensor([1, 1, 2, 4]),
    );
}
