//! The operations of decoders of the Llama kind against PyTorch: grouped attention with windows and caps, normalization by the
//! root mean square, rotary embeddings and gated activations.
//!
//! In float32 the CPU has kernels of its own; in float64 it has the composition that every backend has.

use crate::common::{self, assert_close, fixture};
use burn::tensor::{DType, Device, Tensor, TensorData};
use lora_core::Dropout;
use lora_core::ops::{GateKind, GeluKind, ScaledDotProduct, gated, rms_norm, rotary, seed};
use test_support::tensors::{Tensors, host};

/// Float32 sums of a few dozen terms of the size of one.
const TOLERANCE: f32 = 4e-6;

/// Runs a check on each device, by the kernels and by composition.
fn on_all(check: impl Fn(&Device, DType)) {
    for device in common::training_devices() {
        for dtype in [DType::F32, DType::F64] {
            check(&device, dtype);
        }
    }
}

struct Part<'a> {
    fixture: &'a Tensors,
    name: &'a str,
    device: &'a Device,
    dtype: DType,
}

impl Part<'_> {
    fn get<const D: usize>(&self, part: &str) -> Tensor<D> {
        let tensor = (self.fixture).tensor::<D>(&format!("{}.{part}", self.name), self.device);
        tensor.cast(self.dtype)
    }

    fn leaf<const D: usize>(&self, part: &str) -> Tensor<D> {
        self.get::<D>(part).detach().require_grad()
    }

    fn number(&self, part: &str) -> Option<f32> {
        let name = format!("{}.{part}", self.name);
        let has = self.fixture.names().contains(&name);
        has.then(|| self.fixture.values(&name)[0])
    }

    #[track_caller]
    fn assert<const D: usize>(&self, found: Tensor<D>, part: &str, tolerance: f32) {
        let name = format!("{}.{part}", self.name);
        let what = format!("{name} {:?}", self.dtype);
        assert_close(found, &self.fixture.values(&name), tolerance, &what);
    }
}

#[test]
fn grouped_windowed_and_capped_attention_is_pytorchs() {
    let fixture = fixture("ops/grouped.safetensors");
    on_all(|device, dtype| {
        for name in ["shared", "window", "past", "capped", "all", "one"] {
            let part = Part {
                fixture: &fixture,
                name,
                device,
                dtype,
            };
            let bias = part.number("bias").map(|_| part.get::<4>("bias"));
            let attention = ScaledDotProduct::new(f64::from(part.number("scale").unwrap()))
                .causal()
                .with_window(part.number("window").map(|window| window as usize))
                .with_cap(part.number("cap").map(f64::from))
                .with_bias(bias);
            let [q, k, v] = ["q", "k", "v"].map(|name| part.leaf::<4>(name));
            let output = attention.forward(q.clone(), k.clone(), v.clone());
            part.assert(output.clone(), "out", TOLERANCE);
            let grads = (output * part.get("dout")).sum().backward();
            for (tensor, name) in [(q, "dq"), (k, "dk"), (v, "dv")] {
                part.assert(tensor.grad(&grads).unwrap(), name, TOLERANCE);
            }
        }
    });
}

/// Values from a fixed formula: no two alike, both signs, no symmetry.
fn tensor(shape: [usize; 4], salt: f64, device: &Device, dtype: DType) -> Tensor<4> {
    let value = |i: usize| ((i as f64 + 1.0) * 0.7311 + salt).sin() * 1.3;
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

/// More than one block of queries, windows over parts of blocks, packed texts and dropout: the kernels draw the same masks.
#[test]
fn many_queries_have_the_values_of_the_composition() {
    let device = Device::flex().autodiff();
    let segments = || Some(lora_core::ops::Segments::new(vec![70, 1, 79]));
    for (window, cap, texts, [queries, keys]) in [
        (Some(17), None, None, [150, 150]),
        (Some(70), Some(1.1), None, [130, 171]),
        (None, Some(0.8), None, [65, 65]),
        (Some(66), None, segments(), [150, 150]),
        (Some(1), None, None, [67, 70]),
    ] {
        let run = |dtype: DType| {
            let leaf = |shape, salt| tensor(shape, salt, &device, dtype).require_grad();
            let batch = if texts.is_some() { 1 } else { 2 };
            let inputs = [
                leaf([batch, 6, queries, 5], 0.1),
                leaf([batch, 2, keys, 5], 0.2),
                leaf([batch, 2, keys, 4], 0.3),
            ];
            seed(&device, 9);
            let [q, k, v] = inputs.clone();
            let attention = ScaledDotProduct::new(0.7)
                .causal()
                .with_window(window)
                .with_cap(cap)
                .within(texts.clone())
                .with_dropout(&Dropout::new(0.3));
            let output = attention.forward(q, k, v);
            let weights = tensor([batch, 6, queries, 4], 0.5, &device, dtype);
            let grads = (output.clone() * weights).sum().backward();
            let [q, k, v] = inputs.map(|input| host(input.grad(&grads).unwrap()));
            [host(output), q, k, v]
        };
        let expected = run(DType::F64);
        for (part, (found, expected)) in run(DType::F32).iter().zip(&expected).enumerate() {
            // A single weight has no gradient, except for rounding.
            let scale = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            for (f, e) in found.iter().zip(expected) {
                // Sums of up to 171 products in float32.
                let close = (f - e).abs() <= 6e-6 * scale;
                assert!(close, "{window:?} {cap:?} {part}: {f} is not {e}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "5 heads of queries for 2 of keys")]
fn heads_that_cannot_share_keys_are_refused() {
    let device = Device::flex();
    let [q, k] = [5, 2].map(|heads| tensor([1, heads, 3, 4], 0.1, &device, DType::F32));
    ScaledDotProduct::new(1.0).forward(q, k.clone(), k);
}

#[test]
#[should_panic(expected = "without the causal mask")]
fn a_window_needs_the_causal_mask() {
    let device = Device::flex();
    let q = tensor([1, 2, 3, 4], 0.1, &device, DType::F32);
    let attention = ScaledDotProduct::new(1.0).with_window(Some(2));
    attention.forward(q.clone(), q.clone(), q);
}

fn rms_is_pytorchs<const D: usize>(part: &Part<'_>) {
    for trained in [true, false] {
        let x = part.leaf::<D>("x");
        let gamma = if trained {
            part.leaf::<1>("gamma")
        } else {
            part.get("gamma")
        };
        let y = rms_norm(x.clone(), gamma.clone(), 1e-3);
        part.assert(y.clone(), "y", TOLERANCE);
        let grads = (y * part.get("dy")).sum().backward();
        // Divided by the root mean square, which is about √ε of a row of small values.
        part.assert(x.grad(&grads).unwrap(), "dx", 1e-5);
        let dgamma = gamma.grad(&grads);
        assert_eq!(dgamma.is_some(), trained, "{} {:?}", part.name, part.dtype);
        if let Some(found) = dgamma {
            part.assert(found, "dgamma", TOLERANCE);
        }
    }
}

#[test]
fn rms_norm_is_pytorchs() {
    let fixture = &fixture("ops/rms_norm.safetensors");
    on_all(|device, dtype| {
        let part = |name| Part {
            fixture,
            name,
            device,
            dtype,
        };
        rms_is_pytorchs::<3>(&part("odd"));
        rms_is_pytorchs::<2>(&part("one"));
    });
}

#[test]
fn rotary_embeddings_are_those_of_transformers() {
    let fixture = &fixture("ops/rotary.safetensors");
    on_all(|device, dtype| {
        for name in ["whole", "part"] {
            let part = Part {
                fixture,
                name,
                device,
                dtype,
            };
            // A view that is not contiguous.
            let x = part.get::<4>("x").swap_dims(1, 2).detach().require_grad();
            let y = rotary(x.clone().swap_dims(1, 2), part.get("cos"), part.get("sin"));
            part.assert(y.clone(), "y", TOLERANCE);
            let grads = (y * part.get("dy")).sum().backward();
            let dx = x.grad(&grads).unwrap().swap_dims(1, 2);
            part.assert(dx, "dx", TOLERANCE);
        }
    });
}

#[test]
fn gated_activations_are_pytorchs() {
    let fixture = &fixture("ops/gated.safetensors");
    on_all(|device, dtype| {
        for (name, kind) in [
            ("silu", GateKind::Silu),
            ("gelu", GateKind::Gelu(GeluKind::Exact)),
            ("gelu_tanh", GateKind::Gelu(GeluKind::Tanh)),
        ] {
            let part = Part {
                fixture,
                name,
                device,
                dtype,
            };
            let (gate, up) = (part.leaf::<1>("gate"), part.leaf::<1>("up"));
            let y = gated(gate.clone(), up.clone(), kind);
            part.assert(y.clone(), "y", TOLERANCE);
            let grads = (y * part.get("dy")).sum().backward();
            part.assert(gate.grad(&grads).unwrap(), "dgate", TOLERANCE);
            part.assert(up.grad(&grads).unwrap(), "dup", TOLERANCE);
        }
    });
}
