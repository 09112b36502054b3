//! Mixed precision: products with frozen weights in 16 bits. Flex rounds the operands, as a GPU does, and multiplies them in f32.

use crate::common::values;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor};
use lora_core::ops::{CrossEntropy, HalfFloat, with_mixed_precision};
use lora_core::{
    BaseDType, BaseFloats, LoraConfig, LoraEmbedding, LoraInit, LoraLinear, Quantization,
    QuantizeConfig, TargetModules, attach, narrow, quantize,
};
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

/// Two layers over an embedding, which is also the output layer.
#[derive(Module, Debug)]
struct Net {
    words: LoraEmbedding,
    first: LoraLinear,
    second: LoraLinear,
}

impl Net {
    fn new(held: Held, device: &Device) -> Self {
        let layer = |d_in, d_out, salt: f32, bias: bool| LoraLinear {
            weight: Param::from_tensor(values([d_in, d_out], salt, device) * 0.5),
            bias: bias.then(|| Param::from_tensor(values([d_out], salt + 0.3, device))),
        };
        let net = Self {
            words: LoraEmbedding {
                weight: Param::from_tensor(values([31, 14], 5.0, device)),
            },
            // Odd numbers of values: the last integer is half empty.
            first: layer(14, 37, 1.0, true),
            second: layer(37, 14, 2.0, false),
        };
        match held {
            Held::Half(half) => {
                let floats = BaseFloats::new(BaseDType::F32).with_linear(Some(half));
                let (net, modules) = narrow(net, &floats).unwrap();
                assert_eq!(modules.len(), 2);
                net
            }
            Held::Quantized(kind) => quantize(net, &QuantizeConfig::new(kind)).unwrap().0,
        }
    }

    fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let x = self.words.forward(ids);
        self.second.forward(self.first.forward(x).tanh())
    }
}

/// Hidden states, logits and loss of a net with adapters, then the gradients of the factors.
fn results(
    held: Held,
    dora: bool,
    backward: Option<HalfFloat>,
    mixed: Option<HalfFloat>,
) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let config = LoraConfig::new(3)
        .with_alpha(5.0)
        .with_dora(dora)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["first", "second"]));
    let net = attach(Net::new(held, &device), &config)
        .unwrap()
        .into_module();
    let ids = (Tensor::<1, Int>::arange(0..10, &device) * 7 + 2).remainder_scalar(31);
    let (hidden, logits, loss) = with_mixed_precision(mixed, || {
        let hidden = net.hidden(ids.clone().reshape([2, 5]));
        let logits = net.words.tied_logits(hidden.clone());
        let options = CrossEntropy::new(0.1);
        let rows = hidden.clone().reshape([10, 14]);
        let loss = net.words.tied_head_loss(rows, ids, &options).loss;
        (hidden, logits, loss)
    });
    let mut found = vec![host(hidden), host(logits), host(loss.clone())];
    let grads = with_mixed_precision(backward, || loss.backward());
    for adapter in [&net.first, &net.second].map(|layer| layer.adapter().unwrap()) {
        found.push(host(adapter.a.val().grad(&grads).unwrap()));
        found.push(host(adapter.b.val().grad(&grads).unwrap()));
    }
    found
}

#[test]
fn layers_and_their_gradients_are_those_in_f32_up_to_the_rounding_of_operands() {
    for (held, dora) in HELD
        .into_iter()
        .flat_map(|held| [(held, false), (held, true)])
    {
        let plain = results(held, dora, None, None);
        for half in HalfFloat::ALL {
            let mixed = results(held, dora, Some(half), Some(half));
            for (part, (found, expected)) in mixed.iter().zip(&plain).enumerate() {
                let what = format!("{held:?}, DoRA {dora}, {half}, {part}");
                assert_ne!(found, expected, "{what}: nothing is rounded");
                let scale = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                // Sums of up to 37 products, forward and backward through two layers; roundings are of both signs.
                let allowed = 8.0 * half.rounding() as f32 * scale;
                for (f, e) in found.iter().zip(expected) {
                    assert!((f - e).abs() <= allowed, "{what}: {f} is not {e}");
                }
            }
        }
    }
}

#[test]
fn a_backward_pass_has_the_precision_of_its_forward_pass() {
    for held in HELD {
        let half = Some(HalfFloat::F16);
        assert_eq!(
            results(held, false, None, half),
            results(held, false, half, half)
        );
        assert_eq!(
            results(held, false, half, None),
            results(held, false, None, None)
        );
    }
}

#[test]
fn a_product_is_that_of_the_rounded_operands_summed_in_f32() {
    let device = Device::flex();
    let x = values([9, 37], 0.4, &device);
    let round = |tensor: Tensor<2>, half: HalfFloat| tensor.cast(half.dtype()).cast(DType::F32);
    for half in HalfFloat::ALL {
        let net = Net::new(Held::Half(half), &device);
        let w = net.second.weight.val();
        assert_eq!(host(round(w.clone(), half)), host(w.clone()));
        // f16 is rounded in units of the row's largest magnitude.
        let unit = match half {
            HalfFloat::F16 => x.clone().abs().max_dim(1) / 32768.0 + 1e-30,
            HalfFloat::Bf16 => Tensor::ones([9, 1], &device),
        };
        let expected = round(x.clone() / unit.clone(), half).matmul(w) * unit;
        let found = with_mixed_precision(Some(half), || net.second.forward(x.clone()));
        assert_eq!(host(found), host(expected), "{half}");
    }
}

#[test]
fn the_range_of_f16_bounds_neither_activations_nor_gradients() {
    let device = Device::flex().autodiff();
    let net = Net::new(Held::Half(HalfFloat::F16), &device);
    let run = |mixed, x: Tensor<2>, scale: f32| {
        with_mixed_precision(mixed, || {
            let x = x.require_grad();
            let y = net.second.forward(x.clone());
            let grads = (y.clone() * values([6, 14], 0.9, &device) * scale)
                .sum()
                .backward();
            [host(y), host(x.grad(&grads).unwrap())]
        })
    };
    let half = Some(HalfFloat::F16);
    // f16 ends at 65504, and at 6e-8 to the other side. A row of zeros has no unit.
    let rows = Tensor::<2>::from_floats([[1e6], [1.0], [0.0], [1e-9], [3e30], [1e-20]], &device);
    let x = values([6, 37], 0.2, &device) * rows;
    for scale in [1.0, 1e-9, 1e20] {
        let (found, expected) = (run(half, x.clone(), scale), run(None, x.clone(), scale));
        for (found, expected) in found.iter().zip(&expected) {
            assert_ne!(found, expected);
            let width = expected.len() / 6;
            for (found, expected) in found.chunks(width).zip(expected.chunks(width)) {
                let largest = expected.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (f, e) in found.iter().zip(expected) {
                    // Each row by its own size.
                    assert!((f - e).abs() <= 2e-3 * largest, "{scale}: {f} is not {e}");
                }
            }
        }
    }
    // The training loop leaves such a step out.
    for bad in [f32::INFINITY, f32::NAN] {
        let x = values([6, 37], 0.2, &device).mask_fill(
            Tensor::from_bool(
                burn::tensor::TensorData::new(
                    (0..6 * 37).map(|i| i == 40).collect::<Vec<bool>>(),
                    [6, 37],
                ),
                &device,
            ),
            bad,
        );
        let [y, gradient] = run(half, x, 1.0);
        assert!(y[14..28].iter().all(|y| !y.is_finite()) && y[..14].iter().all(|y| y.is_finite()));
        assert!(gradient.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn weights_that_are_trained_and_layers_in_f32_stay_in_f32() {
    let device = Device::flex().autodiff();
    let layer = LoraLinear {
        weight: Param::from_tensor(values([14, 37], 1.0, &device)),
        bias: None,
    };
    let words = LoraEmbedding {
        weight: Param::from_tensor(values([31, 14], 5.0, &device)),
    };
    let x = values([4, 14], 0.3, &device);
    let run = |mixed| {
        with_mixed_precision(mixed, || {
            let logits = words.tied_logits(x.clone());
            [host(layer.forward(x.clone())), host(logits)]
        })
    };
    assert_eq!(run(Some(HalfFloat::Bf16)), run(None));
}
