//! A projection with its cross entropy, against PyTorch and a finite difference.

use crate::common::{self, assert_close, fixture};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use lora_core::ops::{CrossEntropy, HeadLoss, head_loss, head_loss_in_parts, loss_of_logits};
use test_support::tensors::{Tensors, host};

/// Float32 sums of a few dozen terms of the size of one.
const TOLERANCE: f32 = 2e-6;

fn options(fixture: &Tensors, name: &str) -> CrossEntropy {
    let weighted = ["weighted", "one", "capped_weighted"].contains(&name);
    CrossEntropy {
        label_smoothing: f64::from(fixture.values(&format!("{name}.smoothing"))[0]),
        class_weights: weighted.then(|| fixture.values(&format!("{name}.weights"))),
        logit_cap: name
            .starts_with("capped")
            .then(|| f64::from(fixture.values(&format!("{name}.cap"))[0])),
    }
}

fn whole(tensor: Tensor<1, Int>) -> Vec<i64> {
    tensor.into_data().iter::<i64>().collect()
}

#[test]
fn values_and_gradients_are_pytorchs() {
    let fixture = fixture("ops/head_loss.safetensors");
    for device in common::devices() {
        let device = device.autodiff();
        for name in [
            "plain",
            "smoothed",
            "weighted",
            "one",
            "capped",
            "capped_weighted",
        ] {
            let get = |part: &str| fixture.tensor::<2>(&format!("{name}.{part}"), &device);
            let expected = |part: &str| fixture.values(&format!("{name}.{part}"));
            let targets = fixture.ids(&format!("{name}.targets"), &device);
            let targets = targets.squeeze_dim::<1>(1);
            let options = options(&fixture, name);
            let best = whole(fixture.ids(&format!("{name}.best"), &device).squeeze_dim(1));
            let check = |found: HeadLoss, x: Tensor<2>, w: Tensor<2>| {
                assert_close(found.loss.clone(), &expected("loss"), TOLERANCE, name);
                assert_close(found.nll, &expected("nll"), TOLERANCE, name);
                assert_eq!(whole(found.best), best, "{name}");
                let grads = (found.loss * 1.7).backward();
                assert_close(x.grad(&grads).unwrap(), &expected("dx"), TOLERANCE, name);
                assert_close(w.grad(&grads).unwrap(), &expected("dw"), TOLERANCE, name);
            };
            let (x, w) = (get("x").require_grad(), get("w").require_grad());
            let found = head_loss(x.clone(), w.clone(), targets.clone(), &options);
            check(found, x, w);
            let (x, w) = (get("x").require_grad(), get("w").require_grad());
            let logits = x.clone().matmul(w.clone());
            check(loss_of_logits(logits, targets.clone(), &options), x, w);

            // In two parts of columns, which are frozen.
            let (x, w) = (get("x").require_grad(), get("w"));
            let [_, classes] = w.dims();
            let sizes = [classes - 1, 1].into_iter().filter(|&size| size > 0);
            let parts = w.split_with_sizes(sizes.collect(), 1);
            let found = head_loss_in_parts(x.clone(), parts, targets.clone(), &options);
            assert_close(found.loss.clone(), &expected("loss"), TOLERANCE, name);
            assert_close(found.nll, &expected("nll"), TOLERANCE, name);
            assert_eq!(whole(found.best), best, "{name}");
            let grads = (found.loss * 1.7).backward();
            assert_close(x.grad(&grads).unwrap(), &expected("dx"), TOLERANCE, name);

            // Without gradients, and with a head that lies the other way round, as a tied embedding does.
            let inner = device.clone().inner();
            let (x, w) = (get("x").to_device(&inner), get("w").to_device(&inner));
            let tied = w.transpose() * 1.0;
            let targets = targets.to_device(&inner);
            let found = head_loss(x, tied.transpose(), targets, &options);
            assert_close(found.loss, &expected("loss"), TOLERANCE, name);
            assert_eq!(whole(found.best), best, "{name}");
        }
    }
}

#[test]
fn a_frozen_head_gets_no_gradient() {
    let fixture = fixture("ops/head_loss.safetensors");
    let device = Device::flex().autodiff();
    let x = fixture.tensor::<2>("smoothed.x", &device).require_grad();
    let w = fixture.tensor::<2>("smoothed.w", &device);
    let targets = fixture.ids("smoothed.targets", &device).squeeze_dim(1);
    let found = head_loss(
        x.clone(),
        w.clone(),
        targets,
        &options(&fixture, "smoothed"),
    );
    let grads = (found.loss * 1.7).backward();
    let expected = fixture.values("smoothed.dx");
    assert_close(x.grad(&grads).unwrap(), &expected, TOLERANCE, "dx");
    assert!(w.grad(&grads).is_none());
}

/// Values from a fixed formula: no two alike, both signs, no symmetry.
fn values(count: usize, salt: f64) -> Vec<f64> {
    let value = |i: usize| ((i as f64 + 1.0) * 0.7311 + salt).sin() * 1.3;
    (0..count).map(value).collect()
}

fn tensor(values: &[f64], shape: [usize; 2], device: &Device, dtype: DType) -> Tensor<2> {
    let data = TensorData::new(values.to_vec(), shape);
    Tensor::from_data(data, (device, dtype))
}

#[test]
fn gradients_equal_a_finite_difference_in_float64() {
    let (rows, d, classes) = (4, 3, 6);
    let shapes = [[rows, d], [d, classes]];
    let mut parts = shapes.map(|[a, b]| values(a * b, (a + b) as f64));
    let options = CrossEntropy {
        label_smoothing: 0.2,
        class_weights: Some(vec![0.5, 2.0, 1.0, 3.0, 0.25, 1.5]),
        logit_cap: Some(2.0),
    };
    let loss = |parts: &[Vec<f64>; 2], device: &Device, grad: bool| {
        let [x, w] = [0, 1].map(|i| {
            let tensor = tensor(&parts[i], shapes[i], device, DType::F64);
            if grad { tensor.require_grad() } else { tensor }
        });
        let targets = Tensor::<1, Int>::from_ints([2, -100, 5, 0], device);
        let found = head_loss(x.clone(), w.clone(), targets, &options);
        (found.loss, x, w)
    };
    let (sum, x, w) = loss(&parts, &Device::flex().autodiff(), true);
    let grads = sum.backward();
    let analytic = [x, w].map(|t| {
        let data = t.grad(&grads).unwrap().into_data();
        data.try_to_vec::<f64>().unwrap()
    });
    let step = 1e-5;
    for index in 0..2 {
        for (element, &gradient) in analytic[index].iter().enumerate() {
            let original = parts[index][element];
            let mut at = |value: f64| {
                parts[index][element] = value;
                loss(&parts, &Device::flex(), false).0.into_scalar::<f64>()
            };
            let numeric = (at(original + step) - at(original - step)) / (2.0 * step);
            at(original);
            // The third derivative times the step squared, and rounding.
            let error = (numeric - gradient).abs();
            assert!(
                error < 1e-8 * (1.0 + gradient.abs()),
                "{numeric} {gradient}"
            );
        }
    }
}

#[test]
fn a_vocabulary_is_summed_as_exactly_as_in_float64() {
    let (rows, d, classes) = (5, 9, 9001);
    let device = Device::flex().autodiff();
    let run = |dtype: DType| {
        let tensor = |count, shape, salt| tensor(&values(count, salt), shape, &device, dtype);
        let x = tensor(rows * d, [rows, d], 0.3).require_grad();
        let w = tensor(d * classes, [d, classes], 1.1);
        let targets = Tensor::<1, Int>::from_ints([17, 9000, 0, -1, 4096], &device);
        let found = head_loss(x.clone(), w, targets, &CrossEntropy::new(0.1));
        let grads = found.loss.clone().backward();
        let gradient = x.grad(&grads).unwrap();
        (host(found.loss), host(found.nll), host(gradient))
    };
    let (expected, found) = (run(DType::F64), run(DType::F32));
    for (found, expected) in [
        (&found.0, &expected.0),
        (&found.1, &expected.1),
        (&found.2, &expected.2),
    ] {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= 1e-6 * (1.0 + e.abs()), "{f} is not {e}");
        }
    }
    // Half precision rounds its inputs, but sums in f32.
    for dtype in [DType::F16, DType::BF16] {
        let found = run(dtype);
        for (f, e) in found
            .0
            .iter()
            .chain(&found.2)
            .zip(expected.0.iter().chain(&expected.2))
        {
            assert!(
                (f - e).abs() <= 0.02 * (1.0 + e.abs()),
                "{dtype:?}: {f} is not {e}"
            );
        }
    }
}

#[test]
fn what_is_not_a_number_is_none_in_the_loss() {
    let device = Device::flex();
    let x = Tensor::<2>::from_floats([[1.0, f32::NAN], [1.0, 2.0]], &device);
    let w = Tensor::<2>::ones([2, 40], &device);
    let targets = Tensor::<1, Int>::from_ints([3, 3], &device);
    let found = head_loss(x, w, targets, &CrossEntropy::default());
    assert!(found.loss.into_scalar::<f32>().is_nan());
    let nll = host(found.nll);
    assert!(nll[0].is_nan() && (nll[1] - 40f32.ln()).abs() < 1e-6);
}

#[test]
#[should_panic(expected = "2 weights for 3 classes")]
fn weights_for_other_classes_are_refused() {
    let device = Device::flex();
    let targets = Tensor::<1, Int>::from_ints([0], &device);
    let options = CrossEntropy {
        label_smoothing: 0.0,
        class_weights: Some(vec![1.0, 2.0]),
        logit_cap: None,
    };
    head_loss(
        Tensor::ones([1, 4], &device),
        Tensor::ones([4, 3], &device),
        targets,
        &options,
    );
}

/// Chunks of rows are those of the whole projection, and a batch without rows has none.
#[test]
fn parts_over_several_chunks_have_the_loss_of_the_whole() {
    let device = Device::flex().autodiff();
    let wave = |shape: [usize; 2], salt: f32| {
        let values = (0..shape[0] * shape[1]).map(|i| (i as f32 * 0.7311 + salt).sin());
        Tensor::<2>::from_data(
            TensorData::new(values.collect::<Vec<f32>>(), shape),
            &device,
        )
    };
    // 17 rows of 2²⁰ logits are two chunks.
    let classes = 1 << 20;
    let w = wave([2, classes], 0.3);
    let options = CrossEntropy::new(0.1);
    for rows in [17, 0] {
        let targets: Vec<i64> = (0..rows as i64).map(|row| row * 61_000 - 1).collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &device);
        let run = |parts: Vec<Tensor<2>>| {
            let x = wave([rows, 2], 0.1).require_grad();
            let found = head_loss_in_parts(x.clone(), parts, targets.clone(), &options);
            let loss = host(found.loss.clone());
            let grads = found.loss.backward();
            (
                loss,
                host(found.nll),
                whole(found.best),
                host(x.grad(&grads).unwrap()),
            )
        };
        let (loss, nll, best, dx) = run(vec![w.clone()]);
        let found = run(w
            .clone()
            .split_with_sizes(vec![500_000, 500_000, classes - 1_000_000], 1));
        assert_eq!(found.2, best);
        // Sums of 2²⁰ terms in f32, in another order.
        for (found, expected) in [(&found.0, &loss), (&found.1, &nll), (&found.3, &dx)] {
            test_support::compare::assert_near(found, expected, 1e-5, "in parts");
        }
    }
}
