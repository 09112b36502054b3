//! Products on every backend: operands in all layouts, with sizes that divide no tile.

use super::{one_at_a_time, others, wave};
use crate::common::tolerance;
use burn::tensor::{Device, Tensor};
use lora_core::ops::multiply;
use lora_train::device;
use test_support::tensors::host;

/// Leading axes of both operands, and `m`, `k`, `n`.
const SHAPES: [([usize; 2], [usize; 2], [usize; 3]); 6] = [
    ([1, 1], [1, 1], [17, 20, 33]),
    ([2, 3], [2, 3], [16, 8, 16]),
    ([2, 3], [2, 3], [5, 7, 3]),
    ([2, 1], [1, 3], [36, 4, 20]),
    ([1, 1], [2, 1], [1, 12, 40]),
    ([1, 1], [1, 1], [40, 64, 1]),
];

/// Returns a matrix with leading axes that lies as it is or transposed.
fn operand(
    [b, h]: [usize; 2],
    [m, n]: [usize; 2],
    lies_transposed: bool,
    device: &Device,
) -> Tensor<4> {
    if lies_transposed {
        wave([b, h, n, m], 0.3, device).swap_dims(2, 3)
    } else {
        wave([b, h, m, n], 0.8, device)
    }
}

fn products(device: Device) -> Vec<(String, Vec<f32>)> {
    let device = device.autodiff();
    let mut found = Vec::new();
    for (left, right, [m, k, n]) in SHAPES {
        for transposed in [[false, false], [false, true], [true, false], [true, true]] {
            let lhs = operand(left, [m, k], transposed[0], &device);
            let rhs = operand(right, [k, n], transposed[1], &device);
            let name = format!("{left:?} {right:?} {m} {k} {n} {transposed:?}");
            found.push((name, host(multiply(lhs, rhs))));
        }
    }
    // Columns of a wider matrix, from a place that is no multiple of four values.
    let wide = wave([24, 50], 0.2, &device);
    let rhs = wave([32, 24], 0.6, &device);
    for start in [0, 4, 5] {
        let lhs = wide.clone().slice([0..24, start..start + 32]);
        found.push((
            format!("columns from {start}"),
            host(multiply(lhs, rhs.clone())),
        ));
    }
    found
}

#[test]
fn products_have_the_values_of_flex_in_every_layout() {
    let _turn = one_at_a_time();
    let expected = products(Device::flex());
    for name in others() {
        let device = device::open(name).unwrap();
        let relative = tolerance(&device, 2e-6) as f32;
        for ((case, found), (_, expected)) in products(device).iter().zip(&expected) {
            assert_eq!(found.len(), expected.len(), "{name} {case}");
            let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (f, e) in found.iter().zip(expected) {
                // Up to 64 terms in another order, or with one rounding instead of two.
                assert!(
                    (f - e).abs() <= relative * scale,
                    "{name} {case}: {f} is not {e}"
                );
            }
        }
    }
}
