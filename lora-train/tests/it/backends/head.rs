//! A projection with its loss: chunks of rows, odd sizes, ignored rows, ties.

use super::{one_at_a_time, others, wave};
use crate::common::tolerance;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::ops::{CrossEntropy, HeadLoss, head_loss, head_loss_in_parts};
use lora_train::device;
use test_support::compare::assert_near;
use test_support::tensors::host;

fn whole(tensor: Tensor<1, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}

fn targets(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let rows = values.len();
    Tensor::from_data(TensorData::new(values, [rows]), device)
}

/// 37 rows in chunks of 16, 16 and 5; the second has no target.
const ROWS: usize = 37;
/// Odd, and so many that 16 rows are a chunk.
const CLASSES: usize = 70_003;

/// Loss, likelihoods, and the gradients of hidden states and head, whole or in parts. The most likely classes are not compared: many
/// logits of these waves are equal but for their rounding.
fn values(
    device: &Device,
    smoothing: f64,
    weighted: bool,
    parts: bool,
    logit_cap: Option<f64>,
) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let hidden = wave([ROWS, 3], 0.2, &device);
    let head = wave([3, CLASSES], 0.4, &device);
    let target = |row: i64| match row {
        16..32 | 3 => -1,
        _ => (row * 1_901) % CLASSES as i64,
    };
    let targets = targets((0..ROWS as i64).map(target).collect(), &device);
    let options = CrossEntropy {
        label_smoothing: smoothing,
        class_weights: weighted.then(|| (0..CLASSES).map(|i| 0.5 + (i % 3) as f32).collect()),
        logit_cap,
    };
    let found: HeadLoss = if parts {
        let parts = head
            .clone()
            .detach()
            .split_with_sizes(vec![35_000, 35_000, 3], 1);
        head_loss_in_parts(hidden.clone(), parts, targets, &options)
    } else {
        head_loss(hidden.clone(), head.clone(), targets, &options)
    };
    let grads = found.loss.clone().backward();
    let mut floats = vec![
        host(found.loss),
        host(found.nll),
        host(hidden.grad(&grads).unwrap()),
    ];
    if !parts {
        floats.push(host(head.grad(&grads).unwrap()));
    }
    floats
}

#[test]
fn losses_in_chunks_of_rows_are_those_of_flex() {
    let _turn = one_at_a_time();
    for name in others() {
        let device = device::open(name).unwrap();
        for (smoothing, weighted, parts, cap) in [
            (0.0, false, false, None),
            (0.1, true, false, None),
            (0.1, false, true, None),
            (0.0, false, false, Some(1.5)),
            (0.1, false, true, Some(1.5)),
        ] {
            let expected = values(&Device::flex(), smoothing, weighted, parts, cap);
            let found = values(&device, smoothing, weighted, parts, cap);
            for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                // Sums of 70,003 terms in f32, in another order.
                let near = tolerance(&device, 2e-5) as f32 * scale;
                assert_near(
                    found,
                    expected,
                    near,
                    &format!("{name} {part}, ε {smoothing}"),
                );
            }
            // Rows of a chunk without a target have no loss and no gradient.
            assert!(
                found[1][16..32]
                    .iter()
                    .chain(&found[2][48..96])
                    .all(|&value| value == 0.0)
            );
        }
    }
}

#[test]
fn the_first_of_equal_classes_is_the_most_likely_one() {
    let _turn = one_at_a_time();
    for name in others() {
        let device = device::open(name).unwrap();
        for classes in [1, 2, 127, 128, 129, 300] {
            // The highest logit is that of the classes 0, 7, 14, ... or, turned round, of the class 1 and so on.
            let head: Vec<f32> = (0..classes)
                .map(|class| f32::from(class % 7 == 0))
                .collect();
            let head = Tensor::<2>::from_data(TensorData::new(head, [1, classes]), &device);
            let hidden = Tensor::<2>::from_floats([[1.0], [-1.0], [0.0]], &device);
            let targets = targets(vec![0, -1, classes as i64 - 1], &device);
            let found = head_loss(hidden, head, targets, &CrossEntropy::default());
            let second = i64::from(classes > 1);
            assert_eq!(
                whole(found.best),
                [0, second, 0],
                "{name}, {classes} classes"
            );
            let nll = host(found.nll);
            assert_near(&nll[1..], &[0.0, (classes as f32).ln()], 1e-5, "nll");
        }
    }
}

#[test]
fn an_ignored_row_that_is_not_finite_changes_nothing() {
    let _turn = one_at_a_time();
    for name in others()
        .into_iter()
        .filter(|name| name.to_string() != "ndarray")
    {
        let device = device::open(name).unwrap().autodiff();
        let head = wave([2, 19], 0.4, &device).detach();
        let hidden = Tensor::<2>::from_floats([[0.5, 1.0], [f32::INFINITY, 0.0]], &device);
        let hidden = hidden.require_grad();
        let options = CrossEntropy::new(0.1);
        let found = head_loss(
            hidden.clone(),
            head,
            targets(vec![4, -1], &device),
            &options,
        );
        let grads = found.loss.clone().backward();
        assert!(host(found.loss)[0].is_finite(), "{name}");
        let gradient = host(hidden.grad(&grads).unwrap());
        assert!(
            gradient[0] != 0.0 && gradient[2..] == [0.0, 0.0],
            "{name}: {gradient:?}"
        );
    }
}
