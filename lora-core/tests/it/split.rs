//! An embedding in parts, for a device that cannot bind it in one buffer.

use crate::common;
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::ops::{max_buffer_bytes, with_max_buffer_bytes};
use lora_core::{
    BaseDType, BaseFloats, LoraConfig, LoraEmbedding, LoraLinear, LoraLinearConfig, Quantization,
    QuantizeConfig, SplitWeight, TargetModules, attach, detach, merge, narrow, quantize,
    rows_per_part, split_weight, split_weights, trainable_summary, widen,
};
use test_support::compare::assert_near;
use test_support::tensors::host;

const ROWS: usize = 10;
const D: usize = 6;

#[derive(Module, Debug)]
struct Net {
    words: LoraEmbedding,
    layer: LoraLinear,
}

impl Net {
    /// Looks up, applies a layer, and the tied output layer.
    fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.words
            .tied_logits(self.layer.forward(self.words.forward(ids)))
    }
}

/// Returns the same network with its embedding whole and in parts of 4, 4 and 2 rows.
fn nets(device: &Device) -> [Net; 2] {
    let values: Vec<f32> = (0..ROWS * D).map(|i| (i as f32 * 0.7311).sin()).collect();
    let values = TensorData::new(values, [ROWS, D]);
    let layer = LoraLinearConfig::new(D, D).init(device);
    let id = ParamId::from(7);
    let whole = Param::initialized(id, Tensor::from_data(values.clone(), device));
    [
        whole.set_require_grad(false),
        split_weight(id, &values, 4, device),
    ]
    .map(|weight| Net {
        words: LoraEmbedding { weight },
        layer: layer.clone(),
    })
}

fn ids(device: &Device) -> Tensor<2, Int> {
    // The first and the last row of each part.
    Tensor::from_ints([[0, 3, 4, 7], [8, 9, 9, 0]], device)
}

#[test]
fn parts_are_alike_round_and_bound_by_the_device() {
    let device = Device::flex();
    let rows = |bytes: u64, shape| with_max_buffer_bytes(bytes, || rows_per_part(shape, &device));
    let mib = 1 << 20;
    // GPT-2's and XLM-R's embeddings on software Vulkan, in 2 and in 6 parts.
    assert_eq!(rows(128 * mib, [50257, 768]), Some(25152));
    assert_eq!(rows(128 * mib, [250_002, 768]), Some(41728));
    assert_eq!(rows(148 * mib, [50257, 768]), None);
    // A weight of the limit's size fits, and small parts are not rounded.
    assert_eq!(rows(240, [10, 6]), None);
    assert_eq!(rows(239, [10, 6]), Some(5));
    assert_eq!(rows(1, [10, 6]), Some(1));
    assert_eq!(rows_per_part([1 << 30, 768], &device), None);
}

#[test]
fn a_lowered_limit_ends_with_its_scope() {
    let device = Device::flex().autodiff();
    let inner = with_max_buffer_bytes(5, || {
        let lower = with_max_buffer_bytes(3, || max_buffer_bytes(&device));
        (lower, max_buffer_bytes(&device))
    });
    assert_eq!(
        (inner, max_buffer_bytes(&device)),
        ((Some(3), Some(5)), None)
    );
}

#[test]
fn lookups_and_the_tied_layer_are_those_of_the_whole_weight() {
    for device in common::devices() {
        let [whole, split] = nets(&device);
        let parts = split_weights(&split)
            .remove("words.weight")
            .unwrap()
            .parts();
        let rows: Vec<usize> = parts.iter().map(|part| part.dims()[0]).collect();
        assert_eq!(rows, [4, 4, 2]);
        assert_eq!(
            host(split.words.forward(ids(&device))),
            host(whole.words.forward(ids(&device)))
        );
        assert_eq!(
            host(split.words.weight.val()),
            host(whole.words.weight.val())
        );
        // The sums of six products may be taken in another order.
        let [found, expected] = [&split, &whole].map(|net| host(net.forward(ids(&device))));
        assert_near(&found, &expected, 1e-6, "logits");
    }
}

#[test]
fn adapters_beside_a_split_weight_train_merge_and_come_off() {
    for device in common::training_devices() {
        let config = LoraConfig::new(2).with_targets(TargetModules::names(["layer"]));
        let adapted = nets(&device).map(|net| {
            let net = attach(net, &config).unwrap().into_module();
            test_support::fill::Fill::adapters().map(net)
        });
        let results = adapted.clone().map(|net| {
            let logits = net.forward(ids(&device));
            let grads = logits.clone().square().sum().backward();
            let adapter = net.layer.adapter().unwrap();
            let gradient = |factor: &Param<Tensor<2>>| host(factor.val().grad(&grads).unwrap());
            [host(logits), gradient(&adapter.a), gradient(&adapter.b)]
        });
        let [expected, found] = results;
        for (found, expected) in found.iter().zip(&expected) {
            // Gradients are sums, in another order, of terms that are larger than they are.
            assert_near(found, expected, 5e-5, "logits and gradients");
        }
        let [whole, split] = adapted;
        assert_eq!(trainable_summary(&split), trainable_summary(&whole));
        let merged = merge(split.clone()).into_module();
        for net in [&merged, &detach(split.clone()), &split.valid()] {
            assert_eq!(split_weights(net).len(), 1);
        }
        let expected = host(merge(whole.clone()).into_module().forward(ids(&device)));
        assert_near(
            &host(merged.forward(ids(&device))),
            &expected,
            1e-6,
            "merged",
        );

        let (packed, _) =
            quantize(detach(split), &QuantizeConfig::new(Quantization::Int8)).unwrap();
        let packed = attach(packed, &config).unwrap().into_module();
        let (expected, _) =
            quantize(detach(whole), &QuantizeConfig::new(Quantization::Int8)).unwrap();
        assert!(SplitWeight::on(&packed.words.weight).is_some());
        let expected = host(expected.forward(ids(&device)));
        assert_near(
            &host(packed.forward(ids(&device))),
            &expected,
            1e-6,
            "quantized",
        );
    }
}

#[test]
fn a_split_weight_is_no_target_and_cannot_be_trained() {
    let device = Device::flex();
    let [_, split] = nets(&device);
    let adapter = LoraConfig::new(2).with_targets(TargetModules::names(["words", "layer"]));
    let saved = LoraConfig {
        modules_to_save: vec!["words".into()],
        ..LoraConfig::new(2).with_targets(TargetModules::names(["layer"]))
    };
    for config in [adapter, saved] {
        let error = attach(split.clone(), &config).unwrap_err().to_string();
        assert!(
            error.contains("words") && error.contains("parts"),
            "{error}"
        );
    }
}

/// 120 bytes in 16 bits and 240 in f32.
#[test]
fn a_weight_in_16_bits_is_unpacked_to_parts_and_is_no_target() {
    let device = Device::flex();
    let [whole, split] = nets(&device);
    let floats = BaseFloats::new(BaseDType::Bf16);
    let (packed, _) = narrow(whole, &floats).unwrap();
    let expected = host(packed.words.weight.val());
    with_max_buffer_bytes(150, || {
        for net in [merge(packed.clone()).into_module(), widen(packed.clone())] {
            let parts = split_weights(&net).remove("words.weight").unwrap().parts();
            let rows: Vec<usize> = parts.iter().map(|part| part.dims()[0]).collect();
            assert_eq!(rows, [5, 5]);
            assert_eq!(host(net.words.weight.val()), expected);
            let [found, expected] = [&net, &packed].map(|net| host(net.forward(ids(&device))));
            assert_near(&found, &expected, 1e-6, "logits");
        }
        assert!(detach(packed.clone()).words.packed().is_some());
        let config = LoraConfig::new(2).with_targets(TargetModules::names(["words"]));
        let error = attach(packed.clone(), &config).unwrap_err().to_string();
        assert!(
            error.contains("words") && error.contains("parts"),
            "{error}"
        );
    });
    // Parts stay as they are, beside layers in 16 bits.
    let (net, modules) = narrow(split, &floats).unwrap();
    assert_eq!((modules.len(), split_weights(&net).len()), (1, 1));
}
