//! Reductions of more values than one loop of software Vulkan takes.

use super::{one_at_a_time, others, wave};
use crate::common::tolerance;
use burn::tensor::{Device, Int, Tensor};
use lora_core::ops::{CrossEntropy, head_loss, sum_of_all};
use lora_train::device;
use test_support::compare::assert_near;
use test_support::tensors::host;

/// Number of classes, odd and above the 65,535 turns that llvmpipe's loops have together.
const CLASSES: usize = 70_001;

/// The loss, the gradient of the hidden states, and the most likely classes.
fn loss(device: &Device, smoothing: f32, weighted: bool) -> (Vec<f32>, Vec<f32>, Vec<i64>) {
    let device = device.clone().autodiff();
    let hidden = wave([3, 5], 0.2, &device).require_grad();
    let head = wave([CLASSES, 5], 0.4, &device).transpose();
    let targets = Tensor::<1, Int>::from_ints([69_990, -1, 12], &device);
    let options = CrossEntropy {
        label_smoothing: f64::from(smoothing),
        class_weights: weighted.then(|| (0..CLASSES).map(|i| 0.5 + (i % 3) as f32).collect()),
        logit_cap: None,
    };
    let found = head_loss(hidden.clone(), head, targets, &options);
    let grads = found.loss.clone().backward();
    let best = found.best.into_data().iter::<i64>().collect();
    (host(found.loss), host(hidden.grad(&grads).unwrap()), best)
}

#[test]
fn losses_over_many_classes_are_those_of_flex() {
    let _turn = one_at_a_time();
    for name in others() {
        let device = device::open(name).unwrap();
        for (smoothing, weighted) in [(0.0, false), (0.1, false), (0.1, true)] {
            let expected = loss(&Device::flex(), smoothing, weighted);
            let found = loss(&device, smoothing, weighted);
            // Sums of 70,001 terms in f32, in another order.
            let near = tolerance(&device, 3e-4);
            assert_near(&found.0, &expected.0, near, "loss");
            assert_near(&found.1, &expected.1, near, "gradient");
            assert_eq!(found.2, expected.2, "{name}");
        }
    }
}

#[test]
fn sums_of_many_values_are_those_of_flex() {
    let _turn = one_at_a_time();
    for name in others() {
        let device = device::open(name).unwrap();
        for shape in [[1, 300_001], [70_001, 3], [3, 5]] {
            let sum = |device: &Device| {
                host(sum_of_all(
                    wave(shape, 0.3, &device.clone().autodiff()).square(),
                ))
            };
            let (found, expected) = (sum(&device), sum(&Device::flex()));
            assert_near(&found, &expected, 1e-5 * expected[0], "sum");
        }
    }
}
