//! Every backend that is compiled in gives the numbers of flex.
//!
//! Built with `--features ndarray,webgpu` this runs on a machine without a GPU, WebGPU through a
//! software Vulkan. With flex alone there is nothing to compare, and the tests say so.

mod dropout;
mod dtypes;
mod examined;
mod halves;
mod head;
mod long_rows;
mod long_run;
mod mixed;
mod packing;
mod products;
mod split;

use crate::common::{adapter, fixtures, metrics, model, tolerance};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::ops::{CrossEntropy, ScaledDotProduct, Segments, gelu_tanh, head_loss, layer_norm};
use lora_core::{
    LoraConfig, LoraLinear, Quantization, QuantizeConfig, TargetModules, attach, quantize,
};
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind};
use lora_models::{LoraModel, Pretrained};
use lora_train::device::{self, DeviceName};
use lora_train::jobs::{TrainPlan, train};
use lora_train::options::TrainOptions;
use lora_train::progress::Screen;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use test_support::fill::Fill;
use test_support::tensors::host;

/// Tests that train take turns: with kernel fusion, Burn 0.22.1 loses tensors ("Should have handle for
/// tensor") where two threads of one process run backward passes on one device, as in its issues 4328 and
/// 4947. A likely cause is that a backward pass also frees what the graphs of other threads have left.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed must not fail the others.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The backends to compare with flex.
fn others() -> Vec<DeviceName> {
    let others = vec![
        #[cfg(feature = "ndarray")]
        DeviceName::Ndarray,
        #[cfg(feature = "webgpu")]
        DeviceName::WebGpu,
        #[cfg(feature = "vulkan")]
        DeviceName::Vulkan,
        #[cfg(feature = "metal")]
        DeviceName::Metal,
        #[cfg(feature = "cuda")]
        DeviceName::Cuda,
        #[cfg(feature = "rocm")]
        DeviceName::Rocm,
    ];
    if others.is_empty() {
        eprintln!("flex alone is compiled in: nothing to compare");
    }
    others
}

/// Output and gradients of x, A and B of an adapted layer with odd sizes.
fn layer(device: Device, dora: bool) -> [Vec<f32>; 4] {
    #[derive(Module, Debug)]
    struct Net {
        layer: LoraLinear,
    }
    let device = device.autodiff();
    let layer = lora_core::LoraLinearConfig::new(37, 53).init(&device);
    let config = LoraConfig::new(5)
        .with_alpha(7.0)
        .with_dora(dora)
        .with_targets(TargetModules::names(["layer"]));
    let net = attach(Net { layer }, &config).unwrap().into_module();
    let net = Fill::all().with_salt(1.0).map(net);
    let ids = Tensor::<1, Int>::arange(0..3 * 11 * 37, &device);
    let x = (ids.float() * 0.11)
        .sin()
        .reshape([3, 11, 37])
        .require_grad();
    let y = net.layer.forward(x.clone());
    let grads = y.clone().square().sum().backward();
    let adapter = net.layer.adapter().unwrap();
    [
        host(y),
        host(x.grad(&grads).unwrap()),
        host(adapter.a.val().grad(&grads).unwrap()),
        host(adapter.b.val().grad(&grads).unwrap()),
    ]
}

#[test]
fn an_adapted_layer_has_the_values_and_gradients_of_flex() {
    let _turn = one_at_a_time();
    for dora in [false, true] {
        let expected = layer(Device::flex(), dora);
        for name in others() {
            let device = device::open(name).unwrap();
            let relative = tolerance(&device, 2e-5) as f32;
            let found = layer(device, dora);
            for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (f, e) in found.iter().zip(expected) {
                    // Sums of up to 53 · 33 products in another order.
                    assert!(
                        (f - e).abs() <= relative * scale,
                        "{name} {part}, DoRA {dora}: {f} is not {e}"
                    );
                }
            }
        }
    }
}

/// Values of a shape from a fixed formula, that train.
fn wave<const D: usize>(shape: [usize; D], salt: f32, device: &Device) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|i| ((i as f32 + 1.0) * 0.7311 + salt).sin() * 1.3)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device).require_grad()
}

/// Attention with padding, causal with a past, of one projection, and of packed texts; layer normalization, GELU by tanh, and a head with
/// its loss: values and gradients.
fn operations(device: Device) -> Vec<Vec<f32>> {
    let device = device.autodiff();
    let shapes = [[2, 3, 7, 5], [2, 3, 9, 5], [2, 3, 9, 4], [2, 1, 7, 9]];
    let [q, k, v, bias] = [0, 1, 2, 3].map(|i| wave(shapes[i], i as f32, &device));
    let attention = ScaledDotProduct::new(0.6).causal();
    let attended =
        attention
            .clone()
            .with_bias(Some(bias.clone()))
            .forward(q.clone(), k.clone(), v.clone());
    let fused = wave([2, 6, 3 * 2 * 5], 0.5, &device);
    let padding = Tensor::<4>::from_floats([[[[0.0, 0.0, -1e9, 0.0, 0.0, 0.0]]]], &device);
    let joined = attention
        .with_bias(Some(padding))
        .forward_fused(fused.clone(), 2);
    let (gamma, beta) = (wave([10], 0.6, &device), wave([10], 0.7, &device));
    let normal = layer_norm(joined.clone(), gamma.clone(), beta.clone(), 1e-5);
    let hidden = gelu_tanh(normal).reshape([12, 10]);
    let weight = wave([10, 23], 0.8, &device);
    let targets = [3, 22, -1, 0, 7, 7, -1, 11, 1, 2, 19, 5];
    let targets = Tensor::<1, Int>::from_ints(targets, &device);
    let options = CrossEntropy {
        label_smoothing: 0.2,
        class_weights: Some((0..23).map(|i| 0.5 + i as f32 * 0.1).collect()),
        logit_cap: None,
    };
    let found = head_loss(hidden, weight.clone(), targets, &options);
    let best = found.best.into_data().iter::<f32>().collect();
    // Of one length: a backend that picks its kernels by their speed tries them for each.
    let row = wave([1, 6, 3 * 2 * 5], 0.9, &device);
    let packed = ScaledDotProduct::new(0.6)
        .causal()
        .within(Some(Segments::new(vec![3, 3])))
        .forward_fused(row.clone(), 2);
    let loss = found.loss.clone() + attended.clone().square().sum() + packed.clone().square().sum();
    let grads = loss.backward();
    let mut parts = vec![
        host(attended),
        host(joined),
        host(found.loss),
        host(found.nll),
        best,
        host(packed),
    ];
    parts.extend([q, k, v, bias].map(|tensor| host(tensor.grad(&grads).unwrap())));
    parts.extend([fused, row].map(|tensor| host(tensor.grad(&grads).unwrap())));
    parts.extend([gamma, beta].map(|tensor| host(tensor.grad(&grads).unwrap())));
    parts.push(host(weight.grad(&grads).unwrap()));
    parts
}

#[test]
fn operations_have_the_values_and_gradients_of_flex() {
    let _turn = one_at_a_time();
    let expected = operations(Device::flex());
    for name in others() {
        let device = device::open(name).unwrap();
        let relative = tolerance(&device, 2e-5) as f32;
        let found = operations(device);
        for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len(), "{name} {part}");
            let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (f, e) in found.iter().zip(expected) {
                // A few sums of a few dozen terms one after the other, and the backends' own exponentials.
                assert!(
                    (f - e).abs() <= relative * scale,
                    "{name} {part}: {f} is not {e}"
                );
            }
        }
    }
}

/// Options of a run that continues from the fixture's adapter.
fn options(device: DeviceName, output: &Path) -> TrainOptions {
    TrainOptions {
        model: Some(model()),
        adapter: Some(fixtures().join("train20/init")),
        data: vec![fixtures().join("train20/train.jsonl")],
        output: Some(output.into()),
        device: Some(device),
        max_steps: Some(6),
        max_length: Some(48),
        batch_size: Some(2),
        grad_accumulation: Some(2),
        lr: Some(1e-2),
        no_shuffle: true,
        ..TrainOptions::default()
    }
}

fn trained(options: TrainOptions) {
    let plan = TrainPlan::new(options).unwrap();
    train(plan, burn_train::Interrupter::new(), &mut Screen::quiet()).unwrap();
}

fn run(device: DeviceName, quantize: Option<Quantization>, output: &Path) {
    trained(TrainOptions {
        warmup_steps: Some(2),
        quantize,
        ..options(device, output)
    });
}

#[test]
fn training_steps_of_a_gpt2_are_those_of_flex() {
    let _turn = one_at_a_time();
    // The other packing is in `packed_layers_have_the_values_and_gradients_of_flex`.
    for quantize in [None, Some(Quantization::Nf4)] {
        let dir = tempfile::tempdir().unwrap();
        let reference = dir.path().join("flex");
        run(DeviceName::Flex, quantize, &reference);
        for name in others() {
            let allowed = tolerance(&device::open(name).unwrap(), 1e-4);
            let output = dir.path().join(name.to_string());
            run(name, quantize, &output);
            for (found, expected) in metrics(&output).iter().zip(metrics(&reference)) {
                for key in ["loss", "grad_norm"] {
                    let (f, e) = (
                        found[key].as_f64().unwrap(),
                        expected[key].as_f64().unwrap(),
                    );
                    assert!(
                        (f - e).abs() < allowed,
                        "{name} step {}: {key} {f} is not {e}",
                        found["step"]
                    );
                }
            }
            let (found, expected) = (
                adapter(&output.join("adapter")),
                adapter(&reference.join("adapter")),
            );
            for ((tensor, _, found), (_, _, expected)) in found.iter().zip(&expected) {
                for (f, e) in found.iter().zip(expected) {
                    assert!(
                        f64::from((f - e).abs()) < allowed,
                        "{name} {tensor}: {f} is not {e}"
                    );
                }
            }
        }
    }
}

/// Output and gradients of x and the factors, of a packed layer with an adapter on one without.
fn packed(device: Device, quantization: Quantization, dora: bool) -> Vec<Vec<f32>> {
    #[derive(Module, Debug)]
    struct Net {
        first: LoraLinear,
        second: LoraLinear,
    }
    let device = device.autodiff();
    let layer = |d_in, d_out| lora_core::LoraLinearConfig::new(d_in, d_out).init(&device);
    let net = Net {
        first: layer(37, 53),
        second: layer(53, 19),
    };
    // Packed on the host, so that the codes are the same everywhere.
    let net = Fill::all().with_salt(1.0).map(net);
    let (net, modules) = quantize(net, &QuantizeConfig::new(quantization)).unwrap();
    assert_eq!(modules.len(), 2);
    let config = LoraConfig::new(5)
        .with_alpha(7.0)
        .with_dora(dora)
        .with_targets(TargetModules::names(["second"]));
    let net = attach(net, &config).unwrap().into_module();
    let net = Fill::trained().with_salt(4.0).map(net);
    let ids = Tensor::<1, Int>::arange(0..3 * 11 * 37, &device);
    let x = (ids.float() * 0.11)
        .sin()
        .reshape([3, 11, 37])
        .require_grad();
    let y = net.second.forward(net.first.forward(x.clone()));
    let grads = y.clone().square().sum().backward();
    let adapter = net.second.adapter().unwrap();
    vec![
        host(net.first.packed().unwrap().dequantize()),
        host(y),
        host(x.grad(&grads).unwrap()),
        host(adapter.a.val().grad(&grads).unwrap()),
        host(adapter.b.val().grad(&grads).unwrap()),
    ]
}

#[test]
fn packed_layers_have_the_values_and_gradients_of_flex() {
    let _turn = one_at_a_time();
    for quantization in Quantization::ALL {
        for dora in [false, true] {
            let expected = packed(Device::flex(), quantization, dora);
            for name in others() {
                let device = device::open(name).unwrap();
                let relative = tolerance(&device, 2e-5) as f32;
                let found = packed(device, quantization, dora);
                for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    assert_eq!(found.len(), expected.len());
                    for (f, e) in found.iter().zip(expected) {
                        // The dequantized weight is one product; the rest are sums of up to 53 · 33 in another
                        // order.
                        let allowed = if part == 0 { 1e-7 } else { relative };
                        assert!(
                            (f - e).abs() <= allowed * scale,
                            "{name} {quantization} {part}, DoRA {dora}: {f} is not {e}"
                        );
                    }
                }
            }
        }
    }
}

/// A fixture of an encoder, without dropout: what it draws differs between backends.
fn without_dropout(name: &str, dir: &Path) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../lora-models/tests/fixtures/encoders")
        .join(name);
    let weights = "model.safetensors";
    std::fs::copy(fixture.join(weights), dir.join(weights)).unwrap();
    let text = std::fs::read(fixture.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for key in [
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout",
        "cls_dropout",
        "pooler_dropout",
    ] {
        config[key] = serde_json::json!(0.0);
    }
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

struct Gradients<'a> {
    grads: &'a burn::tensor::Gradients,
    values: Vec<f32>,
}

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad(self.grads) {
            self.values.extend(host(grad));
        }
    }
}

/// Outputs, and the gradients of all that trains, of an encoder with adapters on the modules that a pattern names.
fn encoder(dir: &Path, kind: HeadKind, pattern: &str, device: Device) -> [Vec<f32>; 2] {
    let options = ClassifierOptions {
        head: kind,
        ..ClassifierOptions::default()
    };
    let device = device.autodiff();
    let (model, _) = Classifier::load(dir, &options, &device).unwrap();
    let config = LoraConfig::new(3)
        .with_alpha(5.0)
        .with_targets(TargetModules::regex(pattern));
    let (model, _) = model.attach(&config).unwrap().into_parts();
    // Factors of zero have no gradient on the other side.
    // Larger values make these narrow layers so sensitive that float32 itself is 1e-4 off.
    let fill = Fill::trained().with_salt(1.0).with_amplitude(0.05);
    let model = fill.map(model);
    let pad = i64::from(model.config().pad_token_id);
    let ids = [[5, 9, 4, 7, 11, 6, 8, 3], [9, 3, 12, 7, pad, pad, pad, pad]];
    let ids = Tensor::<2, Int>::from_data(ids, &device);
    let mask = ids.clone().not_equal_elem(pad);
    let outputs = model.forward(ids, &mask, None);
    let grads = outputs.clone().square().sum().backward();
    let mut gradients = Gradients {
        grads: &grads,
        values: Vec::new(),
    };
    model.visit(&mut gradients);
    [host(outputs), gradients.values]
}

#[test]
fn encoders_of_every_family_have_the_outputs_and_gradients_of_flex() {
    let _turn = one_at_a_time();
    // Every linear layer and the embedding of tokens.
    let pattern = r".*(dense|query|value|_proj|in_proj|word_embeddings)";
    for (name, kind) in [
        ("bert_seq", HeadKind::Sequence),
        ("roberta_tok", HeadKind::Token),
        ("deberta_seq", HeadKind::Sequence),
        ("v3_seq", HeadKind::Sequence),
        ("xl_seq", HeadKind::Sequence),
    ] {
        let dir = tempfile::tempdir().unwrap();
        without_dropout(name, dir.path());
        let expected = encoder(dir.path(), kind, pattern, Device::flex());
        assert!(expected[1].len() > 100);
        for backend in others() {
            let device = device::open(backend).unwrap();
            let relative = tolerance(&device, 5e-6) as f32;
            let found = encoder(dir.path(), kind, pattern, device);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.len(), expected.len(), "{backend} {name}");
                let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (f, e) in found.iter().zip(expected) {
                    // Two layers of sums in another order, and the backends' own exp and erf. Burn's own
                    // derivative of GELU, which is another function's, is 1.2e-5 off.
                    assert!(
                        (f - e).abs() <= relative * scale,
                        "{backend} {name}: {f} is not {e}"
                    );
                }
            }
        }
    }
}

#[cfg(feature = "webgpu")]
#[test]
fn a_device_that_is_not_there_is_an_error_with_a_reason() {
    let mut command = crate::common::lora(["generate", "--device", "webgpu", "--prompt", "The"]);
    command.arg("--model").arg(model());
    command.env("CUBECL_WGPU_DEFAULT_DEVICE", "DiscreteGpu(63)");
    let output = command.output().unwrap();
    let message = crate::common::text(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("no device for `webgpu`: "), "{message}");
    assert!(!message.contains("panicked"), "{message}");
}

/// The check of weights and batches relies on it.
#[cfg(feature = "webgpu")]
#[test]
fn an_adapter_says_what_it_binds_with_autodiff_too() {
    use lora_core::ops::max_buffer_bytes;
    let device = device::open(DeviceName::WebGpu).unwrap();
    let limit = max_buffer_bytes(&device).unwrap();
    assert!(limit >= 128 << 20);
    assert_eq!(max_buffer_bytes(&device.autodiff()), Some(limit));
    assert!(max_buffer_bytes(&Device::flex()).is_none());
}
