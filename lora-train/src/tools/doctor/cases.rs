//! Operations of `lora_core::ops`, forward and backward, on inputs from a fixed formula.

use super::report::Speed;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::ops::{
    CrossEntropy, ScaledDotProduct, gelu, gelu_tanh, head_loss, layer_norm, linear, lora_linear,
    seed, softmax,
};
use lora_core::{Dropout, LoraLinear, LoraLinearConfig, Quantization, QuantizeConfig, quantize};

/// Sizes of the inputs, as in a transformer's step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    /// Width of the hidden states.
    pub d: usize,
    /// Number of classes of the head.
    pub vocab: usize,
    pub rank: usize,
}

impl Size {
    /// For a GPU: large enough that its speed is not that of launches.
    pub const LARGE: Self = Self {
        batch: 8,
        seq: 128,
        heads: 12,
        d: 768,
        vocab: 16384,
        rank: 8,
    };
    /// For a CPU, directly or below a GPU interface.
    pub const SMALL: Self = Self {
        batch: 4,
        seq: 64,
        heads: 4,
        d: 256,
        vocab: 2048,
        rank: 8,
    };

    fn rows(&self) -> usize {
        self.batch * self.seq
    }

    fn inner(&self) -> usize {
        4 * self.d
    }

    /// Number of rows with a label.
    fn labels(&self) -> usize {
        self.rows() / 4
    }

    /// Number of values of the hidden states.
    fn hidden(&self) -> usize {
        self.rows() * self.d
    }

    /// Number of scores of attention.
    fn scores(&self) -> usize {
        self.rows() * self.heads * self.seq
    }

    fn head_width(&self) -> usize {
        self.d / self.heads
    }

    /// Amplitude of a weight: outputs are about as large as inputs.
    fn weight(&self) -> f32 {
        (3.0 / self.d as f32).sqrt()
    }
}

/// Work of an operation, forward and backward.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// Floating point operations in products.
    Flop(f64),
    /// Bytes that are read and written at least.
    Bytes(f64),
}

impl Work {
    /// Returns the speed of this work in so many seconds.
    pub fn speed(self, seconds: f64) -> Speed {
        let (work, unit) = match self {
            Self::Flop(flop) => (flop, "GFLOP/s"),
            Self::Bytes(bytes) => (bytes, "GB/s"),
        };
        Speed {
            value: work / seconds.max(1e-9) / 1e9,
            unit,
        }
    }
}

/// Forward and backward pass on inputs that lie on the device. Returns the output and the gradients.
pub(super) type Passes = Box<dyn Fn() -> Vec<(&'static str, Tensor<1>)>>;

/// Operation with its inputs.
pub(super) struct Case {
    /// Name of the operation, as in `lora_core::ops`.
    pub name: &'static str,
    /// Puts the inputs on a device, with autodiff.
    pub prepare: fn(&Size, &Device) -> Passes,
    /// Returns the work of both passes.
    pub work: fn(&Size) -> Work,
}

/// All operations.
pub(super) const CASES: [Case; 12] = [
    Case {
        name: "linear",
        prepare: |&size, device| {
            let inputs = [size.hidden(), size.d * size.inner(), size.inner()];
            passes(
                [
                    "gradient of x",
                    "gradient of the weight",
                    "gradient of the bias",
                ],
                noises(inputs, [1.0, size.weight(), 0.1], device),
                move |[x, w, b]| {
                    let (x, w) = (
                        x.reshape([size.rows(), size.d]),
                        w.reshape([size.d, size.inner()]),
                    );
                    flat(linear(x, w, Some(b)))
                },
            )
        },
        work: |size| Work::Flop(6.0 * (size.hidden() * size.inner()) as f64),
    },
    Case {
        name: "lora_linear",
        prepare: |&size, device| {
            let w = noise(size.d * 3 * size.d, size.weight(), 7, device);
            let w = w.reshape([size.d, 3 * size.d]);
            let inputs = [size.hidden(), size.d * size.rank, size.rank * 3 * size.d];
            passes(
                ["gradient of x", "gradient of A", "gradient of B"],
                noises(inputs, [1.0, size.weight(), 0.5], device),
                move |[x, a, b]| {
                    let x = x.reshape([size.rows(), size.d]);
                    let a = a.reshape([size.d, size.rank]);
                    let b = b.reshape([size.rank, 3 * size.d]);
                    flat(lora_linear(x.clone(), x, w.clone(), a, b, None, 2.0))
                },
            )
        },
        work: |size| {
            let low_rank = 26 * size.hidden() * size.rank;
            Work::Flop((12 * size.hidden() * size.d + low_rank) as f64)
        },
    },
    Case {
        name: "packed nf4",
        prepare: |size, device| packed(*size, Quantization::Nf4, device),
        work: |size| Work::Flop(4.0 * (size.hidden() * size.inner()) as f64),
    },
    Case {
        name: "packed int8",
        prepare: |size, device| packed(*size, Quantization::Int8, device),
        work: |size| Work::Flop(4.0 * (size.hidden() * size.inner()) as f64),
    },
    Case {
        name: "attention, causal",
        prepare: |size, device| {
            let scale = (size.head_width() as f64).powf(-0.5);
            attention(*size, ScaledDotProduct::new(scale).causal(), device)
        },
        work: |size| Work::Flop(14.0 * (size.scores() * size.head_width()) as f64),
    },
    Case {
        name: "attention, padded",
        prepare: |&size, device| {
            let scale = (size.head_width() as f64).powf(-0.5);
            // A quarter of the keys of every second text are padding.
            let seq = size.seq;
            let bias = (0..size.batch * seq).map(|i| {
                let padding = (i / seq) % 2 == 1 && i % seq >= seq * 3 / 4;
                if padding { -1e9 } else { 0.0 }
            });
            let bias = TensorData::new(bias.collect::<Vec<f32>>(), [size.batch, 1, 1, seq]);
            let bias = Tensor::<4>::from_data(bias, device);
            attention(
                size,
                ScaledDotProduct::new(scale).with_bias(Some(bias)),
                device,
            )
        },
        work: |size| Work::Flop(14.0 * (size.scores() * size.head_width()) as f64),
    },
    Case {
        name: "head_loss",
        prepare: |&size, device| {
            let w = noise(size.d * size.vocab, size.weight(), 7, device);
            let w = w.reshape([size.d, size.vocab]);
            // Every seventh row has no label.
            let label = |i: usize| match i % 7 {
                0 => -1,
                _ => (i * 7919 % size.vocab) as i64,
            };
            let labels: Vec<i64> = (0..size.labels()).map(label).collect();
            let labels = TensorData::new(labels, [size.labels()]);
            let labels = Tensor::<1, Int>::from_data(labels, device);
            let options = CrossEntropy::new(0.1);
            passes(
                ["gradient of x"],
                noises([size.labels() * size.d], [1.0], device),
                move |[x]| {
                    let x = x.reshape([size.labels(), size.d]);
                    let found = head_loss(x, w.clone(), labels.clone(), &options);
                    Tensor::cat(vec![found.loss, found.nll], 0)
                },
            )
        },
        work: |size| Work::Flop(6.0 * (size.labels() * size.d * size.vocab) as f64),
    },
    Case {
        name: "layer_norm",
        prepare: |&size, device| {
            passes(
                ["gradient of x", "gradient of gamma", "gradient of beta"],
                noises([size.hidden(), size.d, size.d], [2.0, 1.0, 0.5], device),
                move |[x, gamma, beta]| {
                    flat(layer_norm(
                        x.reshape([size.rows(), size.d]),
                        gamma,
                        beta,
                        1e-5,
                    ))
                },
            )
        },
        work: |size| Work::Bytes(20.0 * size.hidden() as f64),
    },
    Case {
        name: "dropout",
        prepare: |&size, device| {
            let own = device.clone();
            passes(
                ["gradient of x"],
                noises([size.hidden()], [1.0], device),
                move |[x]| {
                    seed(&own, 11);
                    flat(Dropout::new(0.25).forward(x.reshape([size.rows(), size.d])))
                },
            )
        },
        work: |size| Work::Bytes(16.0 * size.hidden() as f64),
    },
    Case {
        name: "gelu",
        prepare: |&size, device| {
            passes(
                ["gradient of x"],
                noises([size.rows() * size.inner()], [3.0], device),
                move |[x]| flat(gelu(x.reshape([size.rows(), size.inner()]))),
            )
        },
        work: |size| Work::Bytes(20.0 * (size.rows() * size.inner()) as f64),
    },
    Case {
        name: "gelu_tanh",
        prepare: |&size, device| {
            passes(
                ["gradient of x"],
                noises([size.rows() * size.inner()], [3.0], device),
                move |[x]| flat(gelu_tanh(x.reshape([size.rows(), size.inner()]))),
            )
        },
        work: |size| Work::Bytes(20.0 * (size.rows() * size.inner()) as f64),
    },
    Case {
        name: "softmax",
        prepare: |&size, device| {
            passes(
                ["gradient of x"],
                noises([size.scores()], [4.0], device),
                move |[x]| flat(softmax(x.reshape([size.rows() * size.heads, size.seq]))),
            )
        },
        work: |size| Work::Bytes(20.0 * size.scores() as f64),
    },
];

fn attention(size: Size, attention: ScaledDotProduct, device: &Device) -> Passes {
    passes(
        ["gradient of Q", "gradient of K", "gradient of V"],
        noises([size.hidden(); 3], [1.0; 3], device),
        move |inputs| {
            let shape = [size.batch, size.heads, size.seq, size.head_width()];
            let [q, k, v] = inputs.map(|input| input.reshape(shape));
            flat(attention.forward(q, k, v))
        },
    )
}

/// Module with a packed weight.
#[derive(Module, Debug)]
struct Net {
    layer: LoraLinear,
}

/// Sets all parameters to noise.
struct Fill(f32);

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let shape = tensor.shape();
            noise(shape.num_elements(), self.0, 9, &tensor.device()).reshape(shape)
        })
    }
}

fn packed(size: Size, quantization: Quantization, device: &Device) -> Passes {
    let layer = LoraLinearConfig::new(size.d, size.inner()).init(device);
    let net = Net { layer }.map(&mut Fill(size.weight()));
    let (net, _) =
        quantize(net, &QuantizeConfig::new(quantization)).unwrap_or_else(|error| panic!("{error}"));
    passes(
        ["gradient of x"],
        noises([size.hidden()], [1.0], device),
        move |[x]| flat(net.layer.forward(x.reshape([size.rows(), size.d]))),
    )
}

/// Builds the passes of an operation on inputs that train. The loss is the sum of the squares of the output.
fn passes<const N: usize>(
    gradients: [&'static str; N],
    inputs: [Tensor<1>; N],
    operation: impl Fn([Tensor<1>; N]) -> Tensor<1> + 'static,
) -> Passes {
    Box::new(move || {
        let inputs = inputs.clone().map(Tensor::require_grad);
        let output = operation(inputs.clone());
        let grads = output.clone().square().sum().backward();
        let gradients = gradients.into_iter().zip(&inputs);
        let gradients = gradients.filter_map(|(name, input)| Some((name, input.grad(&grads)?)));
        [("output", output.detach())]
            .into_iter()
            .chain(gradients)
            .collect()
    })
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let count = tensor.shape().num_elements();
    tensor.reshape([count])
}

/// Puts vectors of noise of these lengths and amplitudes on a device.
fn noises<const N: usize>(
    lengths: [usize; N],
    amplitudes: [f32; N],
    device: &Device,
) -> [Tensor<1>; N] {
    std::array::from_fn(|i| noise(lengths[i], amplitudes[i], i as u32, device))
}

/// Puts noise in `[-amplitude, amplitude)` on a device, the same on each: a hash of the place (Wellons' `lowbias32`).
fn noise(length: usize, amplitude: f32, salt: u32, device: &Device) -> Tensor<1> {
    let value = |i: u32| {
        let mut x = i.wrapping_add(salt.wrapping_mul(0x9e37_79b9));
        x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
        x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
        (((x ^ (x >> 16)) as f32) / 2f32.powi(31) - 1.0) * amplitude
    };
    let values: Vec<f32> = (0..length as u32).map(value).collect();
    Tensor::from_data(TensorData::new(values, [length]), device)
}
