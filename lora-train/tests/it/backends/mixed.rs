//! Mixed precision: products with frozen weights in 16 bits, on every GPU backend that computes in a 16-bit type.

use super::{one_at_a_time, options, others, trained, wave};
use crate::common::encoders::encoder;
use crate::common::{metrics, tolerance};
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_train::Interrupter;
use lora_core::ops::{
    CrossEntropy, HalfFloat, LaunchCounter, is_on_host, mixed_tolerance, mixed_type,
    with_mixed_precision,
};
use lora_core::{
    BaseDType, BaseFloats, BiasTraining, LoraConfig, LoraEmbedding, LoraInit, LoraLinear,
    Quantization, QuantizeConfig, TargetModules, attach, narrow, quantize,
};
use lora_train::TrainError;
use lora_train::device::{self, DeviceName};
use lora_train::jobs::{TrainPlan, train};
use lora_train::options::{Precision, TrainOptions};
use lora_train::progress::Screen;
use lora_train::task::TaskName;
use std::path::Path;
use test_support::tensors::host;

/// Storage of the weights of linear layers.
#[derive(Clone, Copy, Debug)]
enum Held {
    Half(HalfFloat),
    Quantized(Quantization),
}

const HELD: [Held; 4] = [
    Held::Half(HalfFloat::F16),
    Held::Half(HalfFloat::Bf16),
    Held::Quantized(Quantization::Nf4),
    Held::Quantized(Quantization::Int8),
];

impl Held {
    fn pack<M: Module>(self, module: M) -> M {
        match self {
            Self::Half(half) => {
                let floats = BaseFloats::new(BaseDType::F32).with_linear(Some(half));
                narrow(module, &floats).unwrap().0
            }
            Self::Quantized(kind) => quantize(module, &QuantizeConfig::new(kind)).unwrap().0,
        }
    }
}

#[derive(Module, Debug)]
struct Net {
    words: LoraEmbedding,
    first: LoraLinear,
    second: LoraLinear,
}

/// Values of [`wave`] that do not train.
fn still<const D: usize>(shape: [usize; D], salt: f32, device: &Device) -> Tensor<D> {
    let values = host(wave(shape, salt, &Device::flex().autodiff()));
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn layer(shape: [usize; 2], salt: f32, bias: bool, device: &Device) -> LoraLinear {
    LoraLinear {
        weight: Param::from_tensor(still(shape, salt, device) * 0.3),
        bias: bias.then(|| Param::from_tensor(still([shape[1]], salt + 0.5, device))),
    }
}

/// Hidden states, loss and gradients of the factors of two layers below a tied head.
fn results(device: Device, held: Held, mixed: Option<HalfFloat>) -> Vec<Vec<f32>> {
    let device = device.autodiff();
    let net = Net {
        words: LoraEmbedding {
            weight: Param::from_tensor(still([41, 22], 1.0, &device)),
        },
        // Odd numbers of values: the last integer is half empty.
        first: layer([22, 37], 2.0, true, &device),
        second: layer([37, 22], 3.0, false, &device),
    };
    let config = LoraConfig::new(3)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["first", "second"]));
    let net = attach(held.pack(net), &config).unwrap().into_module();
    with_mixed_precision(mixed, || {
        let ids = (Tensor::<1, Int>::arange(0..12, &device) * 7 + 2).remainder_scalar(41);
        let x = net.words.forward(ids.clone().reshape([2, 6]));
        let x = net.second.forward(net.first.forward(x).tanh());
        let hidden = x.clone().reshape([12, 22]);
        let options = CrossEntropy::default();
        // As the mean over many tokens: gradients that f16 does not hold.
        let loss = net.words.tied_head_loss(hidden, ids, &options).loss * 1e-6;
        let mut found = vec![host(x), host(loss.clone())];
        let grads = loss.backward();
        for adapter in [net.first.adapter(), net.second.adapter()] {
            let adapter = adapter.unwrap();
            found.push(host(adapter.a.val().grad(&grads).unwrap()));
            found.push(host(adapter.b.val().grad(&grads).unwrap()));
        }
        found
    })
}

/// Returns the largest difference, relative to the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let pairs = found.iter().zip(expected);
    // A number that is not finite is the largest difference.
    let largest = pairs
        .map(|(f, e)| (f - e).abs())
        .fold(0.0f32, |m, d| if d <= m { m } else { d });
    f64::from(largest / scale)
}

/// Returns the backends that compute in a 16-bit type, with it. The CPU rounds to the same type.
fn mixing() -> Vec<(DeviceName, Device, HalfFloat)> {
    let mut found = Vec::new();
    for name in others() {
        let device = device::open(name).unwrap();
        match mixed_type(&device) {
            Some(half) => found.push((name, device, half)),
            None => eprintln!("{name} computes in no 16-bit type"),
        }
    }
    found
}

#[test]
fn products_in_mixed_precision_are_those_of_flex_and_not_those_in_f32() {
    let _turn = one_at_a_time();
    for (name, device, half) in mixing() {
        for held in HELD {
            let expected = results(Device::flex(), held, Some(half));
            let in_f32 = results(Device::flex(), held, None);
            let found = results(device.clone(), held, Some(half));
            // A handful of products, one after the other, forward and backward.
            let allowed = 5.0 * mixed_tolerance(&device, Some(half));
            for (part, ((found, expected), in_f32)) in
                found.iter().zip(&expected).zip(&in_f32).enumerate()
            {
                let what = format!("{name} {held:?} {half}, part {part}");
                let (of_mixed, of_f32) = (difference(found, expected), difference(found, in_f32));
                println!("{what}: {of_mixed:.1e} from flex, {of_f32:.1e} from f32");
                assert!(of_mixed <= allowed, "{what}: {of_mixed:e} > {allowed:e}");
                assert!(
                    of_f32 <= 8.0 * half.rounding(),
                    "{what}: {of_f32:e} from f32"
                );
                // The loss alone may round to that in f32.
                assert!(
                    part == 1 || of_f32 >= 0.1 * half.rounding(),
                    "{what} is in f32"
                );
            }
        }
    }
}

#[test]
fn packed_weights_take_activations_in_16_bits() {
    let _turn = one_at_a_time();
    let mut devices = vec![Device::flex()];
    devices.extend(others().into_iter().map(|name| device::open(name).unwrap()));
    for device in devices {
        if !device.supports_dtype(DType::F16) {
            eprintln!("{device:?} has no f16");
            continue;
        }
        for held in HELD {
            let run = |device: &Device, dtype: DType| {
                let device = device.clone().autodiff();
                let layers = [
                    layer([22, 37], 2.0, true, &device),
                    layer([22, 37], 2.0, false, &device),
                ];
                let [biased, plain] = layers.map(|layer| held.pack(layer));
                let config = LoraConfig::new(3).with_init(LoraInit::Random);
                let adapted = |config| attach(biased.clone(), &config).unwrap().into_module();
                let dora = adapted(config.clone().with_dora(true));
                let adapted = adapted(config.with_bias(BiasTraining::All));
                // Exact in f16.
                let values = host(
                    wave([5, 22], 0.3, &Device::flex().autodiff())
                        .cast(DType::F16)
                        .cast(DType::F32),
                );
                let x = Tensor::<1>::from_floats(&values[..], &device).reshape([5, 22]);
                let x = x.cast(dtype).detach().require_grad();
                let mut found = Vec::new();
                for layer in [&biased, &plain, &adapted, &dora] {
                    let y = layer.forward(x.clone());
                    let grads = y.clone().cast(DType::F32).square().sum().backward();
                    let gradient = x.grad(&grads).unwrap();
                    assert_eq!((y.dtype(), gradient.dtype()), (dtype, dtype));
                    found.push(host(y.cast(DType::F32)));
                    found.push(host(gradient.cast(DType::F32)));
                    // Trained parameters keep their type.
                    let bias = layer.bias.as_ref().and_then(|bias| bias.val().grad(&grads));
                    if let Some(gradient) = bias {
                        assert_eq!(gradient.dtype(), DType::F32);
                        found.push(host(gradient));
                    }
                    if let Some(adapter) = layer.adapter() {
                        let gradient = adapter.a.val().grad(&grads).unwrap();
                        assert_eq!(gradient.dtype(), DType::F32);
                        found.push(host(gradient));
                    }
                }
                found
            };
            let expected = run(&Device::flex(), DType::F32);
            let found = run(&device, DType::F16);
            for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let difference = difference(found, expected);
                // Outputs and gradients are rounded to 11 bits, one after the other.
                assert!(
                    difference <= tolerance(&device, 4e-3),
                    "{device:?} {held:?} {part}: {difference:e}"
                );
            }
        }
    }
}

#[test]
fn weights_in_the_type_of_the_products_are_read_without_a_kernel() {
    let _turn = one_at_a_time();
    for (name, device, half) in mixing() {
        if is_on_host(&device) {
            continue;
        }
        let x = still([64, 64], 0.3, &device);
        let launches = |mixed| {
            let plain = layer([64, 64], 2.0, false, &device);
            let layer = Held::Half(half).pack(plain);
            let pass = || host(with_mixed_precision(mixed, || layer.forward(x.clone())));
            pass();
            let counter = LaunchCounter::new();
            let before = counter.launches();
            pass();
            counter.launches() - before
        };
        let (mixed, unpacked) = (launches(Some(half)), launches(None));
        println!("{name}: {mixed} launches, {unpacked} where the weight is unpacked to f32");
        assert!(mixed <= unpacked, "{name}: {mixed} > {unpacked}");
    }
}

/// Losses of the steps.
fn losses(output: &Path) -> Vec<f64> {
    metrics(output)
        .iter()
        .map(|step| step["loss"].as_f64().unwrap())
        .collect()
}

#[test]
fn a_run_in_mixed_precision_follows_the_one_in_f32_and_does_not_resume_in_it() {
    let _turn = one_at_a_time();
    for (name, _, half) in mixing() {
        let dir = tempfile::tempdir().unwrap();
        let run = |output: &Path, precision, quantize, max_steps, resume| {
            trained(TrainOptions {
                precision,
                quantize,
                verify_device: Some(true),
                save_steps: Some(3),
                max_steps: Some(max_steps),
                resume,
                ..options(name, output)
            });
            losses(output)
        };
        for quantize in [None, Some(Quantization::Nf4)] {
            let output = |what: &str| dir.path().join(format!("{what} {quantize:?}"));
            let expected = run(&output("f32"), None, quantize, 6, false);
            let mixed = output("mixed");
            let found = run(&mixed, Some(Precision::Mixed), quantize, 6, false);
            assert_ne!(found, expected, "{name}: nothing is rounded");
            println!("{name} {half} {quantize:?}: {found:?}, in f32 {expected:?}");
            for (f, e) in found.iter().zip(&expected) {
                // Two layers of products with relative errors of the rounding; losses are about 5.
                assert!(
                    (f - e).abs() <= 4.0 * half.rounding() * e,
                    "{name}: {f} is not {e}"
                );
            }
        }
        let whole = losses(&dir.path().join("mixed None"));
        let error = |precision| {
            let plan = TrainPlan::new(TrainOptions {
                precision,
                save_steps: Some(3),
                resume: true,
                ..options(name, &dir.path().join("mixed None"))
            });
            let result = train(plan.unwrap(), Interrupter::new(), &mut Screen::quiet());
            result.unwrap_err().to_string()
        };
        let message = error(Some(Precision::F32));
        assert!(message.contains("precision = \"mixed\""), "{message}");
        assert_eq!(losses(&dir.path().join("mixed None")), whole);
    }
}

#[test]
fn a_step_that_overflows_is_left_out_in_mixed_precision_and_three_in_a_row_end_the_run() {
    let _turn = one_at_a_time();
    for (name, _, _) in mixing() {
        let dir = tempfile::tempdir().unwrap();
        let run = |scores: &[f64], precision| {
            let data = dir.path().join("scores.jsonl");
            let lines = scores
                .iter()
                .map(|score| format!("{{\"text\": \"good food\", \"label\": {score}}}\n"));
            std::fs::write(&data, lines.collect::<String>()).unwrap();
            let options = TrainOptions {
                model: Some(encoder("bert", dir.path())),
                task: Some(TaskName::Regression),
                data: vec![data],
                output: Some(dir.path().join("run")),
                overwrite: true,
                device: Some(name),
                batch_size: Some(1),
                epochs: Some(1),
                no_shuffle: true,
                precision,
                ..TrainOptions::default()
            };
            let plan = TrainPlan::new(options).unwrap();
            train(plan, Interrupter::new(), &mut Screen::quiet())
        };
        // Its square is infinite in f32.
        let large = 1e30;
        let mixed = Some(Precision::Mixed);
        run(&[1.0, large, 0.5, large, large, 2.0], mixed).unwrap();
        let steps = metrics(&dir.path().join("run"));
        let skipped: Vec<bool> = steps.iter().map(|step| step["skipped"] == true).collect();
        assert_eq!(skipped, [false, true, false, true, true, false], "{name}");
        let error = run(&[1.0, large, large, large], mixed).unwrap_err();
        assert!(
            matches!(
                error,
                TrainError::NonFiniteSteps {
                    steps: 3,
                    step: 4,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("--precision f32"), "{error}");
        let error = run(&[1.0, large], None).unwrap_err();
        assert!(matches!(error, TrainError::NonFiniteLoss { .. }), "{error}");
    }
}

#[test]
fn a_device_without_mixed_precision_is_refused_before_training() {
    let _turn = one_at_a_time();
    let mut names = vec![DeviceName::Flex];
    names.extend(others());
    for name in names {
        let device = device::open(name).unwrap();
        if mixed_type(&device).is_some() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let plan = TrainPlan::new(TrainOptions {
            precision: Some(Precision::Mixed),
            ..options(name, &dir.path().join("run"))
        });
        let result = train(plan.unwrap(), Interrupter::new(), &mut Screen::quiet());
        let error = result.unwrap_err().to_string();
        for word in [
            "precision",
            "mixed",
            "f32",
            device::describe(&device).as_str(),
        ] {
            assert!(error.contains(word), "{name}, {word}: {error}");
        }
        assert!(!dir.path().join("run").exists());
    }
}
