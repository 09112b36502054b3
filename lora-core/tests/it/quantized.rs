//! Frozen weights in 4 and 8 bits: their values, what is computed with them, and adapters on them.

use crate::common::{self, assert_close, fixture, values};
use burn::module::{Module, Param, ParamId};
use burn::nn::Linear;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::file::{self, PeftOptions};
use lora_core::files::Overwrite;
use lora_core::named::NamedAdapters;
use lora_core::{
    Architecture, LoraConfig, LoraError, LoraInit, LoraLinear, Quantization, QuantizeConfig,
    TargetModules, attach, detach, merge, quantize, trainable_summary,
};
use test_support::tensors::host;

#[derive(Module, Debug)]
struct Net {
    first: LoraLinear,
    second: LoraLinear,
    /// Layer of Burn.
    foreign: Linear,
    head: LoraLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let layer = |d_in, d_out, salt: f32| LoraLinear {
            weight: Param::from_tensor(values([d_in, d_out], salt, device) * 0.5),
            bias: Some(Param::from_tensor(values([d_out], salt + 0.3, device))),
        };
        let foreign = layer(21, 17, 3.0);
        Self {
            first: layer(13, 37, 1.0),
            second: layer(37, 21, 2.0),
            foreign: Linear {
                weight: foreign.weight,
                bias: foreign.bias,
            },
            head: layer(17, 3, 4.0),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.second.forward(self.first.forward(x).tanh()).tanh();
        self.head.forward(self.foreign.forward(x).tanh())
    }
}

fn architecture() -> Architecture {
    Architecture {
        output_layers: vec!["head".into()],
        ..Architecture::default()
    }
}

fn quantized(device: &Device, quantization: Quantization) -> Net {
    let config = QuantizeConfig::new(quantization);
    quantize(Net::new(device), config.for_architecture(&architecture()))
        .unwrap()
        .0
}

/// The same values, as a model in floats.
fn dequantized(device: &Device, quantization: Quantization) -> Net {
    merge(quantized(device, quantization)).into_module()
}

fn input(device: &Device) -> Tensor<3> {
    values([2, 5, 13], 9.0, device)
}

#[test]
fn values_are_those_of_bitsandbytes_and_of_the_formula() {
    let fixture = fixture("quantized/weights.safetensors");
    for device in common::devices() {
        for name in ["whole", "odd", "small", "row"] {
            for quantization in Quantization::ALL {
                let weight = fixture.tensor::<2>(&format!("{name}.weight"), &device);
                let layer = LoraLinear {
                    weight: Param::from_tensor(weight.transpose()),
                    bias: None,
                };
                let (layer, modules) = quantize(layer, &QuantizeConfig::new(quantization)).unwrap();
                let weight = layer.packed().unwrap().dequantize();
                let expected = fixture.values(&format!("{name}.{quantization}"));
                assert_eq!(
                    host(weight.clone().transpose()),
                    expected,
                    "{name} {quantization}"
                );
                // Any other layer reads the same.
                assert_eq!(host(layer.weight.val()), host(weight));
                let blocks = expected.len().div_ceil(64);
                assert_eq!(modules[0].f32_bytes, 4 * expected.len());
                assert_eq!(modules[0].bytes, blocks * (8 * quantization.bits() + 4));
            }
        }
    }
}

#[test]
fn quantizing_what_was_quantized_changes_nothing() {
    let device = Device::flex();
    for quantization in Quantization::ALL {
        let once = dequantized(&device, quantization);
        let before = [&once.first, &once.second].map(|layer| host(layer.weight.val()));
        let config = QuantizeConfig::new(quantization);
        let again = quantize(once, config.for_architecture(&architecture()))
            .unwrap()
            .0;
        let after = [&again.first, &again.second].map(|layer| host(layer.weight.val()));
        for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
            assert!(
                (before - after).abs() <= 1e-6 * before.abs(),
                "{before} {after}"
            );
        }
    }
}

/// Values and gradients of x, A, B and DoRA's magnitude, of an adapter on two of the layers.
fn outputs(net: Net, config: &LoraConfig, device: &Device) -> Vec<Vec<f32>> {
    let net = attach(net, config).unwrap().into_module();
    let x = input(device).require_grad();
    let y = net.forward(x.clone());
    let grads = (y.clone().square() * values([2, 5, 3], 5.0, device))
        .sum()
        .backward();
    let mut found = vec![host(y), host(x.grad(&grads).unwrap())];
    for layer in [net.first.adapter(), net.foreign.weight.reparameterization()] {
        let adapter = layer.unwrap();
        found.push(host(adapter.a.val().grad(&grads).unwrap()));
        found.push(host(adapter.b.val().grad(&grads).unwrap()));
        if let Some(magnitude) = &adapter.magnitude {
            found.push(host(magnitude.val().grad(&grads).unwrap()));
        }
    }
    assert!(net.second.weight.base().grad(&grads).is_none());
    found
}

#[test]
fn values_and_gradients_are_those_of_the_dequantized_weight() {
    for device in common::devices() {
        let device = device.autodiff();
        for quantization in Quantization::ALL {
            for dora in [false, true] {
                let config = LoraConfig::new(3)
                    .with_alpha(5.0)
                    .with_dora(dora)
                    .with_init(LoraInit::Random)
                    .with_targets(TargetModules::names(["first", "foreign"]));
                let packed = outputs(quantized(&device, quantization), &config, &device);
                let dense = outputs(dequantized(&device, quantization), &config, &device);
                assert_eq!(packed.len(), if dora { 8 } else { 6 });
                for (part, (packed, dense)) in packed.iter().zip(&dense).enumerate() {
                    let scale = dense.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                    assert!(scale > 1e-3, "{part}");
                    for (packed, dense) in packed.iter().zip(dense) {
                        // The same products; sums of some tens of them, taken in another order.
                        assert!(
                            (packed - dense).abs() <= 5e-6 * scale,
                            "{quantization} DoRA {dora} {part}: {packed} {dense}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_gradient_of_a_packed_layer_equals_a_finite_difference() {
    let device = Device::flex().autodiff();
    for quantization in Quantization::ALL {
        let layer = quantized(&device, quantization).second;
        let weights = values([3, 21], 0.4, &device);
        let loss = |x: Tensor<2>| (layer.forward(x).square() * weights.clone()).sum();
        let x = values([3, 37], 0.1, &device).require_grad();
        let gradient = host(x.grad(&loss(x.clone()).backward()).unwrap());
        let at = host(x.detach());
        // The loss is quadratic, so that a step of any size gives the gradient but for rounding.
        let step = 0.5;
        for (index, gradient) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut values = at.clone();
                values[index] += by;
                let x = Tensor::from_data(TensorData::new(values, [3, 37]), &device);
                host(loss(x))[0]
            };
            let numeric = (moved(step) - moved(-step)) / (2.0 * step);
            // Sums of up to 700 squares of size 100, in f32.
            assert!(
                (numeric - gradient).abs() < 2e-2,
                "{index}: {numeric} {gradient}"
            );
        }
    }
}

#[test]
fn the_report_names_every_layer_and_what_is_saved() {
    let device = Device::flex();
    let net = quantized(&device, Quantization::Nf4);
    let config = LoraConfig::new(2).with_targets(TargetModules::names(["second"]));
    let (net, report) = attach(net, &config).unwrap().into_parts();
    let names: Vec<&str> = report.quantized.iter().map(|q| q.module.as_str()).collect();
    assert_eq!(names, ["first", "second", "foreign"]);
    // 481, 777 and 357 values are 8, 13 and 6 blocks of 32 bytes and a scale.
    let bytes: Vec<usize> = report.quantized.iter().map(|q| q.bytes).collect();
    assert_eq!(bytes, [8 * 36, 13 * 36, 6 * 36]);
    let text = report.to_string();
    assert!(
        text.contains("second [37, 21] nf4: 3108 -> 468 bytes"),
        "{text}"
    );
    assert!(text.contains("3 quantized modules"), "{text}");

    let summary = trainable_summary(&net);
    assert_eq!(summary.trainable, 2 * (37 + 21));
    let biases = 37 + 21 + 17 + 3;
    assert_eq!(summary.frozen, 481 + 777 + 357 + 51 + biases);
    assert_eq!(summary.frozen_bytes, 27 * 36 + 4 * (51 + biases));
    // Layers that are left in floats.
    assert!(net.head.packed().is_none());
    let config = QuantizeConfig::new(Quantization::Int8).with_skip(["first", "foreign"]);
    let (_, modules) = quantize(Net::new(&device), &config).unwrap();
    let names: Vec<&str> = modules.iter().map(|q| q.module.as_str()).collect();
    assert_eq!(names, ["second", "head"]);
}

#[test]
fn adapters_come_and_go_and_the_weights_stay_packed() {
    let device = Device::flex();
    let x = input(&device);
    for quantization in Quantization::ALL {
        let net = quantized(&device, quantization);
        let before = host(net.forward(x.clone()));
        let config = LoraConfig::new(3)
            .with_alpha(5.0)
            .with_init(LoraInit::Random)
            .with_targets(TargetModules::names(["first", "foreign"]));
        let (net, report) = attach(net, &config).unwrap().into_parts();
        let with = host(net.forward(x.clone()));
        assert_ne!(with, before);
        report.switch.set_enabled(false);
        assert_eq!(host(net.forward(x.clone())), before);
        report.switch.set_enabled(true);

        // Merged: the sum of what it computed with, in floats.
        let merged = merge(net.clone());
        assert!(merged.module().first.packed().is_none());
        assert_close(merged.module().forward(x.clone()), &with, 1e-5, "merged");
        assert_eq!(host(merged.unmerge().forward(x.clone())), with);

        // To and from PEFT's files, which hold the adapter alone.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        file::save(
            &net,
            &report,
            &path,
            &PeftOptions::default(),
            Overwrite::Refuse,
        )
        .unwrap();
        let bytes = std::fs::read(path.join(file::WEIGHTS_FILE)).unwrap();
        let names: Vec<String> = safetensors::SafeTensors::deserialize(&bytes)
            .unwrap()
            .names()
            .iter()
            .map(|name| name.to_string())
            .collect();
        assert!(
            names.len() == 4 && names.iter().all(|n| n.contains("lora_")),
            "{names:?}"
        );

        let net = detach(net);
        assert_eq!(host(net.forward(x.clone())), before);
        assert!(
            [&net.first, &net.second]
                .iter()
                .all(|layer| layer.packed().is_some())
        );
        let (net, report) = file::load(net, &path, &architecture())
            .unwrap()
            .into_parts();
        assert_eq!(report.quantized.len(), 3);
        assert_eq!(host(net.forward(x.clone())), with);
        let net = file::switch(net, &path, &architecture())
            .unwrap()
            .into_module();
        assert_eq!(host(net.forward(x.clone())), with);
        assert!(net.first.packed().is_some());
    }
}

#[test]
fn burns_own_walks_through_a_module_keep_packed_weights() {
    let device = Device::flex().autodiff();
    let net = quantized(&device, Quantization::Nf4);
    let config = LoraConfig::new(2)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["first"]));
    let net = attach(net, &config).unwrap().into_module();
    let expected = host(net.forward(input(&device)));
    let plain = net.valid();
    assert_eq!(host(plain.forward(input(&Device::flex()))), expected);
    assert!(plain.first.packed().is_some() && plain.second.packed().is_some());
    let trains = plain.train();
    assert!(trains.first.packed().is_some());
    assert_eq!(host(trains.forward(input(&device))), expected);
    // A record is of the values: another module of this form takes them.
    let other = attach(
        quantized(&device, Quantization::Nf4),
        &config.clone().with_seed(3),
    )
    .unwrap()
    .into_module();
    assert_ne!(host(other.forward(input(&device))), expected);
    let other = other.load_record(net.into_record());
    assert_eq!(host(other.forward(input(&device))), expected);
}

#[test]
fn a_start_at_the_weight_is_at_the_dequantized_one() {
    let device = Device::flex();
    let x = input(&device);
    for init in [LoraInit::Pissa, LoraInit::Olora] {
        let net = quantized(&device, Quantization::Nf4);
        let before = host(net.forward(x.clone()));
        let config = LoraConfig::new(3)
            .with_init(init)
            .with_targets(TargetModules::names(["first", "foreign"]));
        let net = attach(net, &config).unwrap().into_module();
        assert!(
            host(net.first.adapter().unwrap().b.val())
                .iter()
                .any(|&b| b != 0.0)
        );
        assert_close(net.forward(x.clone()), &before, 1e-5, "start");
    }
}

#[test]
fn what_cannot_be_quantized_is_refused_by_name() {
    let device = Device::flex();
    let config = QuantizeConfig::new(Quantization::Nf4);
    let message = |result: Result<_, LoraError>| -> String {
        let result: Result<(Net, Vec<lora_core::QuantizedModule>), LoraError> = result;
        result.unwrap_err().to_string()
    };
    let twice = message(quantize(quantized(&device, Quantization::Nf4), &config));
    assert!(
        twice.contains("first") && twice.contains("already"),
        "{twice}"
    );
    let targets = LoraConfig::new(2).with_targets(TargetModules::names(["second"]));
    let adapted = attach(Net::new(&device), &targets).unwrap().into_module();
    assert!(message(quantize(adapted, &config)).contains("second"));
    let skip = message(quantize(
        Net::new(&device),
        &config.clone().with_skip(["firzt"]),
    ));
    assert!(skip.contains("firzt") && skip.contains("first"), "{skip}");
    let mut bad = Net::new(&device);
    bad.second.weight = bad.second.weight.map(|w| w.mul_scalar(f32::NAN));
    let bad = message(quantize(bad, &config));
    assert!(bad.contains("second") && bad.contains("finite"), "{bad}");
    let whole = targets.clone().with_modules_to_save(["first"]);
    let whole = attach(quantized(&device, Quantization::Nf4), &whole)
        .unwrap_err()
        .to_string();
    assert!(
        whole.contains("first") && whole.contains("quantized"),
        "{whole}"
    );

    #[derive(Module, Debug)]
    struct NoLinear {
        table: Param<Tensor<2>>,
        ids: Param<Tensor<1, Int>>,
    }
    let none = NoLinear {
        table: Param::from_tensor(values([4, 3], 0.0, &device)),
        ids: Param::initialized(ParamId::new(), Tensor::from_data([1, 2], &device)),
    };
    let error = quantize(none, &config).unwrap_err().to_string();
    assert!(error.contains("linear layers"), "{error}");
}

#[test]
fn named_adapters_act_on_packed_weights_as_on_their_values() {
    let device = Device::flex();
    let x = values([4, 3, 13], 5.0, &device);
    let config = |rank, alpha, targets: &[&str]| {
        LoraConfig::new(rank)
            .with_alpha(alpha)
            .with_init(LoraInit::Random)
            .with_targets(TargetModules::names(targets.to_vec()))
    };
    let configs = [
        ("a", config(2, 5.0, &["first", "second"])),
        ("b", config(3, 4.0, &["second"]).with_dora(true)),
    ];
    for quantization in Quantization::ALL {
        let dense = dequantized(&device, quantization);
        let set = |base: Net| {
            let mut set = NamedAdapters::new(base, architecture()).unwrap();
            for (name, config) in &configs {
                let adapted = attach(dense.clone(), config).unwrap();
                let options = PeftOptions::default();
                set.add_attached(name, &adapted, &options).unwrap();
            }
            set
        };
        let (packed, dense) = (set(quantized(&device, quantization)), set(dense.clone()));
        for name in ["a", "b"] {
            packed.activate(name).unwrap();
            dense.activate(name).unwrap();
            let expected = host(dense.model().forward(x.clone()));
            assert_close(packed.model().forward(x.clone()), &expected, 1e-5, name);
            let merged = packed.merge(name).unwrap();
            assert_close(
                merged.module().forward(x.clone()),
                &expected,
                1e-5,
                "merged",
            );
        }
        let names = [Some("b"), None, Some("a"), Some("b")];
        let mixed = |set: &NamedAdapters<Net>| {
            set.per_example(&names, |net| net.forward(x.clone()))
                .unwrap()
        };
        assert_close(mixed(&packed), &host(mixed(&dense)), 1e-5, "mixed");
        let net = packed.model();
        assert!(
            [&net.first, &net.second]
                .iter()
                .all(|l| l.packed().is_some())
        );

        // Off, the base is what it was; and one of them alone trains over it.
        packed.disable();
        let bare = host(quantized(&device, quantization).forward(x.clone()));
        assert_eq!(host(packed.model().forward(x.clone())), bare);
        let (alone, report) = packed.alone("b").unwrap().into_parts();
        assert_eq!(report.quantized.len(), 3);
        assert!(alone.second.packed().is_some());
        dense.activate("b").unwrap();
        let expected = host(dense.model().forward(x.clone()));
        assert_close(alone.forward(x.clone()), &expected, 1e-5, "alone");
    }
}
