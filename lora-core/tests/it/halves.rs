//! Frozen weights in 16 bits: everything that is computed with them is what the same values in f32 give.

use crate::common::{self, assert_close, values};
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};
use lora_core::file::{self, PeftOptions};
use lora_core::files::Overwrite;
use lora_core::named::NamedAdapters;
use lora_core::ops::CrossEntropy;
use lora_core::{
    Architecture, BaseDType, BaseFloats, HalfFloat, HalfValues, LoraConfig, LoraEmbedding,
    LoraInit, LoraLinear, Quantization, QuantizeConfig, TargetModules, attach, detach, half_weight,
    merge, narrow, quantize, trainable_summary, widen,
};
use test_support::tensors::host;

/// A tied language model without attention.
#[derive(Module, Debug)]
struct Net {
    words: LoraEmbedding,
    first: LoraLinear,
    second: LoraLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let layer = |d_in, d_out, salt: f32, bias: bool| LoraLinear {
            weight: Param::from_tensor(values([d_in, d_out], salt, device) * 0.5),
            bias: bias.then(|| Param::from_tensor(values([d_out], salt + 0.3, device))),
        };
        Self {
            words: LoraEmbedding {
                weight: Param::from_tensor(values([31, 14], 5.0, device)),
            },
            // Odd numbers of values: the last integer is half empty.
            first: layer(14, 37, 1.0, true),
            second: layer(37, 14, 2.0, false),
        }
    }

    fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let x = self.words.forward(ids);
        self.second.forward(self.first.forward(x).tanh())
    }

    /// Loss of the next tokens.
    fn loss(&self, ids: Tensor<2, Int>) -> Tensor<1> {
        let [batch, seq] = ids.dims();
        let targets = ids
            .clone()
            .narrow(1, 1, seq - 1)
            .reshape([batch * (seq - 1)]);
        let hidden = self.hidden(ids.narrow(1, 0, seq - 1));
        let hidden = hidden.reshape([batch * (seq - 1), 14]);
        let options = CrossEntropy::new(0.1);
        self.words.tied_head_loss(hidden, targets, &options).loss
    }
}

fn halves(device: &Device, half: BaseDType) -> Net {
    let (net, modules) = narrow(Net::new(device), &BaseFloats::new(half)).unwrap();
    assert_eq!(modules.len(), 3);
    net
}

/// The same values in f32.
fn widened(device: &Device, half: BaseDType) -> Net {
    let net = widen(halves(device, half));
    assert!(net.words.packed().is_none() && net.first.packed().is_none());
    net
}

const TYPES: [BaseDType; 2] = [BaseDType::F16, BaseDType::Bf16];

fn ids(device: &Device) -> Tensor<2, Int> {
    let ids = Tensor::<1, Int>::arange(0..10, device) * 7 + 2;
    ids.reshape([2, 5]).remainder_scalar(31)
}

#[test]
fn outputs_are_bit_for_bit_those_of_the_same_values_in_f32() {
    for device in common::devices() {
        for half in TYPES {
            let (packed, dense) = (halves(&device, half), widened(&device, half));
            let ids = ids(&device);
            let found = host(packed.hidden(ids.clone()));
            assert_eq!(found, host(dense.hidden(ids.clone())), "{half}");
            assert_ne!(found, host(Net::new(&device).hidden(ids.clone())), "{half}");
            let logits = |net: &Net| host(net.words.tied_logits(net.hidden(ids.clone())));
            assert_eq!(logits(&packed), logits(&dense), "{half}");
            let loss = |net: &Net| host(net.loss(ids.clone()));
            assert_eq!(loss(&packed), loss(&dense), "{half}");
            // What reads the weight past its layer.
            assert_eq!(
                host(packed.first.weight.val()),
                host(dense.first.weight.val())
            );
        }
    }
}

/// Loss, gradients of the factors by name, of adapters with these options.
fn gradients(net: Net, config: &LoraConfig, device: &Device) -> Vec<Vec<f32>> {
    let net = attach(net, config).unwrap().into_module();
    let loss = net.loss(ids(device)) * 1.7;
    let mut found = vec![host(loss.clone())];
    let grads = loss.backward();
    for adapter in [
        net.first.adapter(),
        net.second.adapter(),
        net.words.adapter(),
    ] {
        let adapter = adapter.unwrap();
        found.push(host(adapter.a.val().grad(&grads).unwrap()));
        found.push(host(adapter.b.val().grad(&grads).unwrap()));
        if let Some(magnitude) = &adapter.magnitude {
            found.push(host(magnitude.val().grad(&grads).unwrap()));
        }
    }
    let bias = net.first.bias.as_ref().unwrap().val().grad(&grads);
    found.extend(bias.map(host));
    found
}

#[test]
fn gradients_of_adapters_are_bit_for_bit_those_over_the_same_values_in_f32() {
    let all = TargetModules::names(["first", "second", "words"]);
    let plain = LoraConfig::new(3)
        .with_alpha(5.0)
        .with_init(LoraInit::Random)
        .with_targets(all);
    let configs = [
        plain.clone(),
        plain.clone().with_dora(true),
        plain.with_bias(lora_core::BiasTraining::All),
    ];
    for device in common::training_devices() {
        for (half, config) in TYPES
            .iter()
            .flat_map(|half| configs.iter().map(move |c| (half, c)))
        {
            let packed = gradients(halves(&device, *half), config, &device);
            let dense = gradients(widened(&device, *half), config, &device);
            assert!(packed.len() >= 7);
            assert_eq!(packed, dense, "{half} {config:?}");
        }
    }
}

#[test]
fn a_bias_is_trained_over_a_packed_weight() {
    let device = Device::flex().autodiff();
    let gradient = |net: Net| {
        let config = LoraConfig::new(2)
            .with_targets(TargetModules::names(["second"]))
            .with_bias(lora_core::BiasTraining::All);
        let net = attach(net, &config).unwrap().into_module();
        let grads = net.loss(ids(&device)).backward();
        host(net.first.bias.as_ref().unwrap().val().grad(&grads).unwrap())
    };
    let found = gradient(halves(&device, BaseDType::Bf16));
    assert!(found.iter().any(|&value| value != 0.0));
    assert_eq!(found, gradient(widened(&device, BaseDType::Bf16)));
}

#[test]
fn a_large_output_layer_goes_in_parts() {
    // 2.1 parts of 16 MiB.
    const CLASSES: usize = 35_000;
    const D: usize = 256;
    let device = Device::flex().autodiff();
    let words = LoraEmbedding {
        weight: Param::from_tensor(values([CLASSES, D], 0.5, &device) * 0.1),
    };
    let (packed, _) = narrow(words, &BaseFloats::new(BaseDType::Bf16)).unwrap();
    let dense = widen(packed.clone());
    let run = |words: &LoraEmbedding| {
        let x = values([3, D], 2.0, &device).require_grad();
        let targets = Tensor::<1, Int>::from_ints([34_999, 20_000, -1], &device);
        let options = CrossEntropy::default();
        let found = words.tied_head_loss(x.clone(), targets, &options);
        let best = found.best.into_data().iter::<i64>().collect::<Vec<_>>();
        let loss = host(found.loss.clone());
        let grads = found.loss.backward();
        let logits = host(words.tied_logits(x.clone().detach()));
        (loss, best, logits, host(x.grad(&grads).unwrap()))
    };
    let (packed, dense) = (run(&packed), run(&dense));
    assert_eq!(packed.0, dense.0);
    assert_eq!(packed.1, dense.1);
    // A product with few rows may be computed by another kernel, in another order: sums of 256 terms below 1.
    common::assert_close(
        Tensor::<1>::from_floats(packed.2.as_slice(), &device),
        &dense.2,
        1e-6,
        "logits",
    );
    // Sums over the classes, in another order.
    common::assert_close(
        Tensor::<1>::from_floats(packed.3.as_slice(), &device),
        &dense.3,
        1e-6,
        "gradient",
    );
}

#[test]
fn embeddings_and_the_rest_are_in_16_bits_beside_quantized_layers() {
    let device = Device::flex();
    let config = QuantizeConfig::new(Quantization::Nf4).with_skip(["second"]);
    let (net, _) = quantize(Net::new(&device), &config).unwrap();
    let floats = BaseFloats::new(BaseDType::F16);
    let (net, modules) = narrow(net, &floats).unwrap();
    let formats: Vec<String> = modules.iter().map(|m| m.format.to_string()).collect();
    assert_eq!(formats, ["f16", "nf4", "f16"]);
    // Of [31, 14] and [37, 14], and 9 blocks of [14, 37].
    let bytes = 2 * 14 * (31 + 37) + 9 * (32 + 4);
    assert_eq!(modules.iter().map(|m| m.bytes).sum::<usize>(), bytes);
    let summary = trainable_summary(&lora_core::freeze(net.clone()).into_module());
    assert_eq!(summary.frozen, 31 * 14 + 2 * 14 * 37 + 37);
    // The bias, and few numbers that tell the formats.
    let rest = summary.frozen_bytes - bytes;
    assert!((4 * 37..4 * 37 + 64).contains(&rest), "{rest}");
    let config = LoraConfig::new(2).with_targets(TargetModules::names(["first"]));
    let report = attach(net, &config).unwrap().report().to_string();
    assert!(
        report.contains("1 quantized modules") && report.contains("2 modules in 16 bits"),
        "{report}"
    );
}

#[test]
fn adapters_go_on_and_off_and_through_files_over_16_bits() {
    let device = Device::flex();
    let config = LoraConfig::new(2)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["words", "first"]));
    for half in TYPES {
        let net = halves(&device, half);
        let bare = host(net.hidden(ids(&device)));
        let adapted = attach(net.clone(), &config).unwrap();
        let with = host(adapted.module().hidden(ids(&device)));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        adapted
            .save(&path, &PeftOptions::default(), Overwrite::Refuse)
            .unwrap();
        let again = file::load(net, &path, &Architecture::default()).unwrap();
        assert!(again.report().base_difference.is_none());
        assert_eq!(host(again.module().hidden(ids(&device))), with);
        // The same on the values in f32: merged, too.
        let dense = file::load(widened(&device, half), &path, &Architecture::default()).unwrap();
        assert!(dense.report().base_difference.is_none());
        let merged = |net: Net| host(merge(net).into_module().hidden(ids(&device)));
        assert_eq!(
            merged(adapted.module().clone()),
            merged(dense.into_module())
        );
        let detached = detach(adapted.into_module());
        assert!(detached.words.packed().is_some() && detached.first.packed().is_some());
        assert_eq!(host(detached.hidden(ids(&device))), bare);
    }
}

#[test]
fn the_fingerprint_is_that_of_the_values_unless_they_were_rounded() {
    let device = Device::flex();
    let config = LoraConfig::new(2).with_targets(TargetModules::names(["first"]));
    let dir = tempfile::tempdir().unwrap();
    let save = |net: Net, name: &str| {
        let path = dir.path().join(name);
        let adapted = attach(net, &config).unwrap();
        adapted
            .save(&path, &PeftOptions::default(), Overwrite::Refuse)
            .unwrap();
        path
    };
    let differs = |net: Net, path: &std::path::Path| {
        let adapted = file::load(net, path, &Architecture::default()).unwrap();
        adapted.report().base_difference.is_some()
    };
    let dense = widened(&device, BaseDType::Bf16);
    // These values are exact in 16 bits.
    let (exact, modules) = narrow(dense.clone(), &BaseFloats::new(BaseDType::Bf16)).unwrap();
    assert!(modules.iter().all(|module| !module.rounded));
    let path = save(exact.clone(), "exact");
    assert!(!differs(dense.clone(), &path));
    assert!(!differs(exact.clone(), &path));
    assert!(differs(Net::new(&device), &path));
    let path = save(dense, "dense");
    assert!(!differs(exact, &path));
    // Rounded ones are compared by their shapes.
    let rounded = halves(&device, BaseDType::Bf16);
    assert!(!differs(rounded.clone(), &path));
    let path = save(rounded, "rounded");
    assert!(!differs(Net::new(&device), &path));
}

#[test]
fn named_adapters_act_on_16_bits_as_on_the_values_in_f32() {
    let device = Device::flex();
    let half = BaseDType::F16;
    let config = |rank, targets: &[&str]| {
        LoraConfig::new(rank)
            .with_init(LoraInit::Random)
            .with_targets(TargetModules::names(targets.to_vec()))
    };
    let set = |base: Net| {
        let mut set = NamedAdapters::new(base, Architecture::default()).unwrap();
        for (name, config) in [
            ("a", config(2, &["words", "first"])),
            ("b", config(3, &["first", "second"]).with_dora(true)),
        ] {
            let adapted = attach(widened(&device, half), &config).unwrap();
            set.add_attached(name, &adapted, &PeftOptions::default())
                .unwrap();
        }
        set
    };
    let (packed, dense) = (set(halves(&device, half)), set(widened(&device, half)));
    for name in ["a", "b"] {
        packed.activate(name).unwrap();
        dense.activate(name).unwrap();
        let run = |set: &NamedAdapters<Net>| host(set.model().loss(ids(&device)));
        assert_eq!(run(&packed), run(&dense), "{name}");
    }
    let names = [Some("b"), Some("a")];
    let mixed = |set: &NamedAdapters<Net>| {
        set.per_example(&names, |net| net.hidden(ids(&device)))
            .unwrap()
    };
    assert_close(mixed(&packed), &host(mixed(&dense)), 1e-6, "mixed");
}

#[test]
fn a_record_and_burns_own_walks_keep_the_weights() {
    let device = Device::flex().autodiff();
    let config = LoraConfig::new(2)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["first"]));
    let attached = |seed| {
        let config = config.clone().with_seed(seed);
        attach(halves(&device, BaseDType::Bf16), &config)
            .unwrap()
            .into_module()
    };
    let net = attached(0);
    let expected = host(net.loss(ids(&device)));
    let plain = net.valid();
    assert_eq!(host(plain.loss(ids(&Device::flex()))), expected);
    let net = plain.train();
    assert_eq!(host(net.loss(ids(&device))), expected);
    let other = attached(3);
    assert_ne!(host(other.loss(ids(&device))), expected);
    let other = other.load_record(net.into_record());
    assert_eq!(host(other.loss(ids(&device))), expected);
    assert!(other.words.packed().is_some());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = Device::flex();
    let message = |net: Net, dtype| {
        let result = narrow(net, &BaseFloats::new(dtype));
        result.unwrap_err().to_string()
    };
    let mut large = Net::new(&device);
    large.second.weight = large.second.weight.map(|w| w * 2e5);
    let text = message(large.clone(), BaseDType::F16);
    assert!(text.contains("second") && text.contains("f16"), "{text}");
    assert!(narrow(large, &BaseFloats::new(BaseDType::Bf16)).is_ok());
    let mut bad = Net::new(&device);
    bad.words.weight = bad.words.weight.map(|w| w * f32::NAN);
    let text = message(bad, BaseDType::Bf16);
    assert!(text.contains("words") && text.contains("finite"), "{text}");
    let text = message(halves(&device, BaseDType::F16), BaseDType::Bf16);
    assert!(text.contains("already"), "{text}");
    let config = LoraConfig::new(2)
        .with_targets(TargetModules::names(["first"]))
        .with_modules_to_save(["second"]);
    let error = attach(halves(&device, BaseDType::F16), &config).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("second") && error.contains("16 bits"),
        "{error}"
    );

    let bits = burn::tensor::Bytes::from_bytes_vec(vec![0, 0x7c, 0, 0]);
    let id = ParamId::new();
    let values = HalfValues::Bits(bits);
    let error = half_weight("head", id, values, [1, 2], false, HalfFloat::F16, &device);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("head") && error.contains("finite"),
        "{error}"
    );
    // The values in memory are f32, so that `auto` and f32 change nothing.
    for dtype in [BaseDType::Auto, BaseDType::F32] {
        let (net, modules) = narrow(Net::new(&device), &BaseFloats::new(dtype)).unwrap();
        assert!(modules.is_empty() && net.first.packed().is_none());
    }
}
