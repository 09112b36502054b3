//! A packed weight on its parameter: [`PackedWeight`].

use super::codec;
use super::kind::Quantization;
use crate::bare::is_bare;
use crate::layout::{PACKED_COMPONENT, param_id};
use crate::ops::packed::{BLOCK, PackedLayout, WORD, packed_linear, unpack};
use burn::module::{Module, Param, ParamId, Reparameterization};
use burn::tensor::{DType, Device, Element, Int, Tensor, TensorData};

/// A frozen weight `[d_in, d_out]` of a linear layer in 4 or 8 bits a value.
///
/// It lives on the weight's [`Param`], or in the adapter on that, and the parameter itself holds a
/// placeholder without memory. [`LoraLinear`](crate::LoraLinear) dequantizes it in the forward pass and again in
/// the backward pass, and keeps no dense copy in between. Any other layer reads the dense weight
/// that Burn composes, and keeps it until its backward pass.
#[derive(Module, Debug)]
pub struct PackedWeight {
    /// Packed values: words of 32 bits with 4 or 8 values each.
    codes: Param<Tensor<1, Int>>,
    /// Scale of every 64 values.
    scales: Param<Tensor<1>>,
    #[module(skip)]
    shape: [usize; 2],
    #[module(skip)]
    quantization: Quantization,
}

impl PackedWeight {
    /// Packs a weight; `None` if a value is not finite.
    ///
    /// # Shapes
    /// - `rows`: `[d_out, d_in]`, the orientation of PyTorch
    /// - `shape`: `[d_in, d_out]`
    pub(crate) fn new(
        rows: &[f32],
        shape: [usize; 2],
        quantization: Quantization,
        weight: ParamId,
        device: &Device,
    ) -> Option<Self> {
        let (codes, scales) = codec::pack(rows, quantization)?;
        // The ids depend on the weight's id alone, which is the same in every process.
        let id = |name: &str| param_id(&format!("{weight}.{PACKED_COMPONENT}.{name}"));
        // As in Burn's own layers: memory that lives as long as the model is allocated apart.
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

    /// Joins the parameters that a module holds; `None` if their sizes do not match.
    pub(super) fn from_parts(
        codes: Param<Tensor<1, Int>>,
        scales: Param<Tensor<1>>,
        shape: [usize; 2],
    ) -> Option<Self> {
        let (words, blocks) = (codes.lazy_shape()[0], scales.lazy_shape()[0]);
        let fits = |q: &Quantization| words * WORD == blocks * BLOCK * q.bits();
        Some(Self {
            codes,
            scales,
            shape,
            quantization: Quantization::ALL.into_iter().find(fits)?,
        })
    }

    /// Returns the number format.
    pub fn quantization(&self) -> Quantization {
        self.quantization
    }

    /// Returns the shape of the weight, `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Returns the device.
    pub fn device(&self) -> Device {
        self.scales.lazy_device()
    }

    /// Returns the size of packed values and scales, in bytes.
    pub fn bytes(&self) -> usize {
        size_of::<i32>() * self.codes.lazy_shape()[0]
            + size_of::<f32>() * self.scales.lazy_shape()[0]
    }

    fn layout(&self) -> PackedLayout {
        let [d_in, d_out] = self.shape;
        let bits = self.quantization.bits();
        PackedLayout { bits, d_in, d_out }
    }

    /// Dequantizes the weight to f32, `[d_in, d_out]`, as a new tensor.
    pub fn dequantize(&self) -> Tensor<2> {
        unpack(self.codes.val(), self.scales.val(), self.layout())
    }

    /// Returns `x W + b`.
    ///
    /// # Shapes
    /// - `x`: `[..., d_in]`, `bias`: `[d_out]`
    /// - returns `[..., d_out]`
    pub(crate) fn linear<const D: usize>(
        &self,
        x: Tensor<D>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let y = packed_linear(x, self.codes.val(), self.scales.val(), self.layout());
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

impl Reparameterization for PackedWeight {
    const NAME: &'static str = PACKED_COMPONENT;

    /// Returns the dequantized weight.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if is_bare() {
            base
        } else {
            self.dequantize().reshape(base.shape())
        }
    }
}
