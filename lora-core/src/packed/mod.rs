//! Frozen weights in few bits: what is kept of one, and what layers do with it.

mod codec;
mod collect;
mod kind;

pub(crate) use collect::{of_module, within};
pub use kind::Quantization;

use crate::bare::is_bare;
use crate::hash::stable_hash;
use crate::ops::packed::{BLOCK, WORD, packed_linear, unpack};
use burn::module::{Module, Param, ParamId, Reparameterization};
use burn::tensor::{DType, Device, Element, Int, Shape, Tensor, TensorData};

/// The path component before the parameters of a packed weight.
pub(crate) const COMPONENT: &str = "packed";

/// A frozen weight `[d_in, d_out]` of a linear layer in 4 or 8 bits a value.
///
/// It lives on the weight's [`Param`], or in the adapter that is there, and the parameter itself holds a
/// placeholder that takes no memory. [`LoraLinear`](crate::LoraLinear) multiplies with it and dequantises it again in
/// the backward pass: no dense copy lives between the two. Any other layer reads the weight
/// that Burn composes, dense, and keeps that until its backward pass.
#[derive(Module, Debug)]
pub struct PackedWeight {
    /// Words of 32 bits with 4 or 8 codes each, as [`Quantization`] says.
    codes: Param<Tensor<1, Int>>,
    /// A factor for every 64 values.
    scales: Param<Tensor<1>>,
    #[module(skip)]
    shape: [usize; 2],
    #[module(skip)]
    quantization: Quantization,
}

impl PackedWeight {
    /// Packs a weight; `None` where a value of it is not finite.
    ///
    /// # Shapes
    /// - `rows`: `[d_out, d_in]`, as PyTorch has the weight
    /// - `shape`: `[d_in, d_out]`
    pub(crate) fn new(
        rows: &[f32],
        shape: [usize; 2],
        quantization: Quantization,
        of: ParamId,
        device: &Device,
    ) -> Option<Self> {
        let (codes, scales) = codec::pack(rows, quantization)?;
        // They depend on the weight's alone, which is the same in every process.
        let id = |name: &str| ParamId::from(stable_hash(&format!("{of}.{COMPONENT}.{name}")));
        // As Burn's own layers do: memory that lives as long as the model lies apart from the rest.
        let codes = device.memory_persistent_allocations(vector(codes), |codes| {
            Tensor::<1, Int>::from_data(codes, (device, DType::I32))
        });
        let scales = device.memory_persistent_allocations(vector(scales), |scales| {
            Tensor::<1>::from_data(scales, (device, DType::F32))
        });
        Some(Self {
            codes: Param::initialized(id("codes"), codes),
            scales: Param::initialized(id("scales"), scales).set_require_grad(false),
            shape,
            quantization,
        })
    }

    /// Of parameters that a module holds.
    fn of_parts(
        codes: Param<Tensor<1, Int>>,
        scales: Param<Tensor<1>>,
        shape: [usize; 2],
    ) -> Option<Self> {
        let (words, blocks) = (codes.lazy_shape()[0], scales.lazy_shape()[0]);
        let of = |q: &Quantization| words * WORD == blocks * BLOCK * q.bits();
        Some(Self {
            codes,
            scales,
            shape,
            quantization: Quantization::ALL.into_iter().find(of)?,
        })
    }

    /// How it is packed.
    pub fn quantization(&self) -> Quantization {
        self.quantization
    }

    /// Its shape, `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.scales.lazy_device()
    }

    /// The bytes that codes and scales take.
    pub fn bytes(&self) -> usize {
        size_of::<i32>() * self.codes.lazy_shape()[0]
            + size_of::<f32>() * self.scales.lazy_shape()[0]
    }

    /// The weight in f32, `[d_in, d_out]`: a new tensor each time.
    pub fn dequantize(&self) -> Tensor<2> {
        let bits = self.quantization.bits();
        unpack(self.codes.val(), self.scales.val(), bits, self.shape)
    }

    /// `x W + b`.
    ///
    /// # Shapes
    /// - `x`: `[..., d_in]`, `bias`: `[d_out]`
    /// - returns `[..., d_out]`
    pub(crate) fn linear<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let bits = self.quantization.bits();
        let y = packed_linear(x, self.codes.val(), self.scales.val(), bits, self.shape);
        match bias {
            None => y,
            Some(bias) => y + bias.unsqueeze(),
        }
    }
}

fn vector<E: Element>(values: Vec<E>) -> TensorData {
    let count = values.len();
    TensorData::new(values, [count])
}

/// What the parameter of a packed weight holds: zeros of its shape, in the memory of one.
pub(crate) fn placeholder<const D: usize>(shape: Shape, device: &Device) -> Tensor<D> {
    let zero = TensorData::new(vec![0.0f32], [1; D]);
    Tensor::<D>::from_data(zero, (device, DType::F32)).expand(shape)
}

impl Reparameterization for PackedWeight {
    const NAME: &'static str = COMPONENT;

    /// The weight in f32.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        match is_bare() {
            true => base,
            false => self.dequantize().reshape(base.shape()),
        }
    }
}
