//! Dropout on every backend: the draws of flex, in layers and in attention, whose scores may be computed in parts.

use super::{one_at_a_time, others, wave};
use burn::tensor::{Device, Tensor};
use lora_core::Dropout;
use lora_core::ops::{ScaledDotProduct, seed};
use lora_train::device;
use test_support::tensors::host;

/// Values and gradients of two draws of one seed, in shapes of one to four axes.
fn draws(device: Device) -> Vec<Vec<f32>> {
    let device = device.autodiff();
    let dropout = Dropout::new(0.3);
    let mut parts = Vec::new();
    seed(&device, 11);
    let mut draw = |x: Tensor<3>| {
        let y = dropout.forward(x.clone());
        let grads = y.clone().sum().backward();
        parts.extend([host(y), host(x.grad(&grads).unwrap())]);
    };
    draw(wave([2, 37, 53], 0.1, &device));
    draw(wave([1, 1, 1], 0.2, &device));
    draw(wave([3, 64, 128], 0.3, &device));
    let x = wave([101], 0.4, &device);
    parts.push(host(dropout.forward(x)));
    let x = wave([2, 3, 5, 7], 0.5, &device);
    parts.push(host(dropout.forward(x)));
    parts
}

#[test]
fn every_backend_drops_the_elements_that_flex_drops() {
    let _turn = one_at_a_time();
    let expected = draws(Device::flex());
    for name in others() {
        let found = draws(device::open(name).unwrap());
        // A product with one factor has no other rounding.
        assert_eq!(found, expected, "{name}");
    }
}

/// Output and gradients of causal attention with a bias, whole and in parts, and of one projection.
fn attention(device: Device) -> Vec<Vec<f32>> {
    let device = device.autodiff();
    let attention = ScaledDotProduct::new(0.6)
        .causal()
        .with_dropout(&Dropout::new(0.2));
    let mut parts = Vec::new();
    // Bytes of the scores of all, of two heads, and of one.
    for bytes in [u64::MAX, 2 * 7 * 9 * 4, 1] {
        let shapes = [[2, 3, 7, 5], [2, 3, 9, 5], [2, 3, 9, 4], [2, 1, 7, 9]];
        let [q, k, v, bias] = [0, 1, 2, 3].map(|i| wave(shapes[i], i as f32, &device));
        seed(&device, 12);
        let attention = attention.clone().with_max_scores_bytes(bytes);
        let output =
            attention
                .with_bias(Some(bias.clone()))
                .forward(q.clone(), k.clone(), v.clone());
        let grads = output.clone().square().sum().backward();
        parts.push(host(output));
        parts.extend([q, k, v, bias].map(|tensor| host(tensor.grad(&grads).unwrap())));
    }
    let fused = wave([2, 6, 3 * 2 * 5], 0.5, &device);
    let output = attention.forward_fused(fused.clone(), 2);
    let grads = output.clone().square().sum().backward();
    parts.extend([host(output), host(fused.grad(&grads).unwrap())]);
    parts
}

#[test]
fn attention_drops_the_weights_that_it_drops_on_flex_whole_and_in_parts() {
    let _turn = one_at_a_time();
    let expected = attention(Device::flex());
    for name in others() {
        let found = attention(device::open(name).unwrap());
        for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len(), "{name} {part}");
            let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (f, e) in found.iter().zip(expected) {
                // Sums of a few dozen terms one after the other, and the backends' own exponentials.
                assert!(
                    (f - e).abs() <= 2e-5 * scale,
                    "{name} {part}: {f} is not {e}"
                );
            }
        }
    }
}
