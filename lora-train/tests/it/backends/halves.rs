//! Frozen weights in 16 bits on other backends than flex.

use super::{one_at_a_time, others, wave};
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use lora_core::ops::CrossEntropy;
use lora_core::{
    BaseDType, BaseFloats, LoraConfig, LoraEmbedding, LoraInit, LoraLinear, TargetModules, attach,
    narrow,
};
use lora_train::device;
use test_support::tensors::host;

#[derive(Module, Debug)]
struct Net {
    words: LoraEmbedding,
    first: LoraLinear,
    second: LoraLinear,
}

/// Values of the weights, then loss and gradients of the factors, of a tied model in 16 bits.
fn run(device: Device, dtype: BaseDType) -> Vec<Vec<f32>> {
    let device = device.autodiff();
    let layer = |shape: [usize; 2], salt, bias: bool| LoraLinear {
        weight: Param::from_tensor(wave(shape, salt, &device)),
        bias: bias.then(|| Param::from_tensor(wave([shape[1]], salt + 0.5, &device))),
    };
    let net = Net {
        words: LoraEmbedding {
            weight: Param::from_tensor(wave([41, 22], 1.0, &device)),
        },
        first: layer([22, 37], 2.0, true),
        second: layer([37, 22], 3.0, false),
    };
    let (net, modules) = narrow(net, &BaseFloats::new(dtype)).unwrap();
    assert_eq!(modules.len(), 3);
    let mut found = vec![
        host(net.words.weight.val()),
        host(net.first.weight.val()),
        host(net.second.weight.val()),
    ];
    let config = LoraConfig::new(3)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["first", "words"]));
    let net = attach(net, &config).unwrap().into_module();
    let ids = (Tensor::<1, Int>::arange(0..12, &device) * 7 + 2).remainder_scalar(41);
    let x = net.words.forward(ids.clone().reshape([2, 6]));
    let x = net.second.forward(net.first.forward(x).tanh());
    let hidden = x.reshape([12, 22]);
    let options = CrossEntropy::default();
    let loss = net.words.tied_head_loss(hidden, ids, &options).loss;
    found.push(host(loss.clone()));
    let grads = loss.backward();
    for adapter in [net.words.adapter(), net.first.adapter()] {
        let adapter = adapter.unwrap();
        found.push(host(adapter.a.val().grad(&grads).unwrap()));
        found.push(host(adapter.b.val().grad(&grads).unwrap()));
    }
    found
}

#[test]
fn weights_in_16_bits_have_the_values_and_gradients_of_flex() {
    let _turn = one_at_a_time();
    for dtype in [BaseDType::F16, BaseDType::Bf16] {
        let expected = run(Device::flex(), dtype);
        for name in others() {
            let found = run(device::open(name).unwrap(), dtype);
            for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                // Widening is exact.
                if part < 3 {
                    assert_eq!(found, expected, "{name} {dtype} {part}");
                }
                let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (f, e) in found.iter().zip(expected) {
                    // Sums of a few dozen products, one after the other, in another order.
                    assert!(
                        (f - e).abs() <= 2e-5 * scale,
                        "{name} {dtype} {part}: {f} is not {e}"
                    );
                }
            }
        }
    }
}
