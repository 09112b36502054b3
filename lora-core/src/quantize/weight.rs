//! A packed weight on its parameter: [`PackedWeight`].

use super::codec;
use super::half_kind::HalfKind;
use super::half_words::{self, HalfValues, HalfWords};
use super::kind::Quantization;
use crate::bare::{are_parts_kept, is_bare};
use crate::layout::{PACKED_COMPONENT, param_id};
use crate::ops::HalfFloat;
use crate::ops::packed::{PackedFormat, PackedLayout, packed_linear, packed_lora_linear, unpack};
use crate::ops::packed_format::{BLOCK, WORD};
use crate::ops::{CrossEntropy, HeadLoss, packed_head_loss};
use crate::split::{SplitWeight, rows_per_part};
use burn::module::{Module, Param, ParamId, Reparameterization};
use burn::tensor::module::embedding;
use burn::tensor::{DType, Device, Element, Int, Tensor, TensorData};
use std::ops::Range;

/// A frozen weight `[d_in, d_out]` of a linear layer in 4, 8 or 16 bits a value, or of an embedding in 8 or 16 bits.
///
/// It lives on the weight's [`Param`], or in the adapter on that, and the parameter itself holds a
/// placeholder without memory. [`LoraLinear`](crate::LoraLinear) dequantizes it in the forward pass and again in
/// the backward pass, and keeps no dense copy in between; [`LoraEmbedding`](crate::LoraEmbedding) dequantizes the rows that it
/// looks up. Any other layer reads the dense weight that Burn composes, and keeps it until its backward pass.
#[derive(Module, Debug)]
pub struct PackedWeight {
    /// Packed values: words of 32 bits with 2, 4 or 8 values each.
    codes: Param<Tensor<1, Int>>,
    /// Scale of every 64 values; `None` for floats of 16 bits.
    scales: Option<Param<Tensor<1>>>,
    /// For floats of 16 bits: a tensor whose length is [`HalfKind::length`]. The walk over a module sees parameters alone.
    half: Option<Param<Tensor<1>>>,
    #[module(skip)]
    layout: PackedLayout,
    #[module(skip)]
    rounded: bool,
}

impl PackedWeight {
    /// Packs the weight of a linear layer; `None` if a value is not finite.
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
        Self::quantized(rows, shape, true, quantization, weight, device)
    }

    /// Packs a weight; `None` if a value is not finite.
    ///
    /// # Shapes
    /// - `rows`: `shape`, or its transpose if `transposed`
    /// - `shape`: `[d_in, d_out]`
    pub(super) fn quantized(
        rows: &[f32],
        shape: [usize; 2],
        transposed: bool,
        quantization: Quantization,
        weight: ParamId,
        device: &Device,
    ) -> Option<Self> {
        let (codes, scales) = codec::pack(rows, quantization)?;
        let [d_in, d_out] = shape;
        Some(Self {
            codes: codes_param(weight, vector(codes), device),
            scales: Some(floats_param(weight, "scales", vector(scales), device)),
            half: None,
            layout: PackedLayout {
                format: quantization.format(),
                d_in,
                d_out,
                transposed,
            },
            rounded: true,
        })
    }

    /// Packs a weight as floats of 16 bits.
    ///
    /// # Shapes
    /// - `values`: `shape`, or its transpose if `transposed`
    /// - `shape`: `[d_in, d_out]`
    ///
    /// # Errors
    /// A message about the weight, if a value is not finite or would become infinite.
    pub(crate) fn half(
        values: HalfValues<'_>,
        shape @ [d_in, d_out]: [usize; 2],
        transposed: bool,
        half: HalfFloat,
        weight: ParamId,
        device: &Device,
    ) -> Result<Self, String> {
        let HalfWords { words, rounded } = half_words::pack(values, half, shape.iter().product())?;
        let kind = HalfKind {
            half,
            transposed,
            rounded,
        };
        let length = vector(vec![1.0f32; kind.length()]);
        Ok(Self {
            codes: codes_param(weight, words, device),
            scales: None,
            half: Some(floats_param(weight, "half", length, device)),
            layout: PackedLayout {
                format: half.format(),
                d_in,
                d_out,
                transposed,
            },
            rounded,
        })
    }

    /// Joins the parameters that a module holds; `None` if their sizes do not match. The last one holds scales, or else is
    /// that of floats of 16 bits. Quantized values of an embedding are in its own order.
    pub(super) fn from_parts(
        codes: Param<Tensor<1, Int>>,
        floats: Param<Tensor<1>>,
        is_half: bool,
        of_embedding: bool,
        [d_in, d_out]: [usize; 2],
    ) -> Option<Self> {
        let (words, length) = (codes.lazy_shape()[0], floats.lazy_shape()[0]);
        let layout = |format, transposed| PackedLayout {
            format,
            d_in,
            d_out,
            transposed,
        };
        if is_half {
            let kind = HalfKind::from_length(length)?;
            return (words == (d_in * d_out).div_ceil(2)).then(|| Self {
                codes,
                scales: None,
                half: Some(floats),
                layout: layout(kind.half.format(), kind.transposed),
                rounded: kind.rounded,
            });
        }
        let fits = |q: &Quantization| words * WORD == length * BLOCK * q.bits();
        let quantization = Quantization::ALL.into_iter().find(fits)?;
        Some(Self {
            codes,
            scales: Some(floats),
            half: None,
            layout: layout(quantization.format(), !of_embedding),
            rounded: true,
        })
    }

    /// Returns the transposed weight, which shares the values. `weight` is the id of the parameter that it will be on.
    pub(super) fn transpose(&self, weight: ParamId) -> Self {
        let layout = self.layout.transpose();
        let half = match layout.format {
            PackedFormat::F16 => Some(HalfFloat::F16),
            PackedFormat::Bf16 => Some(HalfFloat::Bf16),
            PackedFormat::Nf4 | PackedFormat::Int8 => None,
        };
        let half = half.map(|half| {
            let kind = HalfKind {
                half,
                transposed: layout.transposed,
                rounded: self.rounded,
            };
            let length = vector(vec![1.0f32; kind.length()]);
            floats_param(weight, "half", length, &self.device())
        });
        let scales = self.scales.as_ref().map(|scales| {
            Param::initialized(part_id(weight, "scales"), scales.val()).set_require_grad(false)
        });
        Self {
            codes: Param::initialized(part_id(weight, "codes"), self.codes.val()),
            scales,
            half,
            layout,
            rounded: self.rounded,
        }
    }

    /// Returns the number format.
    pub fn format(&self) -> PackedFormat {
        self.layout.format
    }

    /// Returns the shape of the weight, `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.layout.d_in, self.layout.d_out]
    }

    /// Returns true if packing changed the values: always with 4 or 8 bits.
    pub fn is_rounded(&self) -> bool {
        self.rounded
    }

    /// Returns the device.
    pub fn device(&self) -> Device {
        self.codes.lazy_device()
    }

    /// Returns the size of packed values and scales, in bytes.
    pub fn bytes(&self) -> usize {
        let scales = self.scales.as_ref();
        let scales = scales.map_or(0, |scales| scales.lazy_shape()[0]);
        size_of::<i32>() * self.codes.lazy_shape()[0] + size_of::<f32>() * scales
    }

    /// Returns the scales, or a tensor that only tells device and element type.
    fn floats(&self) -> Tensor<1> {
        let floats = self.scales.as_ref().or(self.half.as_ref());
        floats.expect("scales or the length of a kind").val()
    }

    /// Dequantizes the weight to f32, `[d_in, d_out]`, as a new tensor.
    pub fn dequantize(&self) -> Tensor<2> {
        unpack(self.codes.val(), self.floats(), self.layout)
    }

    /// Dequantizes the first rows, at least `count` values of them if there are so many.
    pub(crate) fn head(&self, count: usize) -> Tensor<2> {
        let [d_in, d_out] = self.shape();
        self.rows(0..count.div_ceil(d_out.max(1)).min(d_in))
    }

    /// Dequantizes some rows, and these alone if they are stored apart from others.
    fn rows(&self, rows: Range<usize>) -> Tensor<2> {
        match self.words_per_row() {
            Some(words) => {
                let codes = self.codes.val();
                let codes = codes.narrow(0, rows.start * words, rows.len() * words);
                let floats = match self.layout.scales_per_row() {
                    0 => self.floats(),
                    scales => {
                        let all = self.floats();
                        all.narrow(0, rows.start * scales, rows.len() * scales)
                    }
                };
                let layout = PackedLayout {
                    d_in: rows.len(),
                    ..self.layout
                };
                unpack(codes, floats, layout)
            }
            None => self.dequantize().narrow(0, rows.start, rows.len()),
        }
    }

    /// Returns the integers of a row, if no two rows share an integer or a scale.
    fn words_per_row(&self) -> Option<usize> {
        self.layout
            .words_per_row()
            .filter(|_| !self.layout.transposed)
    }

    /// True if a large output layer, or one that is tied to this embedding, is unpacked part by part.
    pub(crate) fn unpacks_in_parts(&self) -> bool {
        self.format().is_half() || self.layout.words_per_row().is_some()
    }

    /// Returns the number of rows in each part of [`in_parts`](Self::in_parts); `None` if the device binds the weight in f32.
    pub(crate) fn rows_per_part(&self) -> Option<usize> {
        rows_per_part(self.shape(), &self.device())
    }

    /// Dequantizes the weight in parts, if the device cannot bind it in f32.
    pub(crate) fn in_parts(&self) -> Option<SplitWeight> {
        let size = self.rows_per_part()?;
        let rows = self.shape()[0];
        let starts = (0..rows).step_by(size);
        let parts = starts.map(|start| self.rows(start..rows.min(start + size)));
        Some(SplitWeight::new(self.codes.id, parts))
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
        packed_linear(x, self.codes.val(), self.floats(), bias, self.layout)
    }

    /// Returns `x W + scale · (adapter_x A) B`.
    pub(crate) fn adapted<const D: usize>(
        &self,
        x: Tensor<D>,
        adapter_x: Tensor<D>,
        factors: [Tensor<2>; 2],
        scale: f64,
    ) -> Tensor<D> {
        let (codes, floats) = (self.codes.val(), self.floats());
        packed_lora_linear([x, adapter_x], codes, floats, factors, self.layout, scale)
    }

    /// Looks up rows of an embedding, and dequantizes these alone.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - returns `[batch, seq, d_out]`
    pub(crate) fn embedding(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [rows, d_out] = self.shape();
        let Some(words) = self.words_per_row() else {
            return embedding(self.dequantize(), ids);
        };
        let [batch, seq] = ids.dims();
        let count = batch * seq;
        let codes = self.codes.val().reshape([rows, words]);
        let ids = ids.reshape([count]);
        let floats = match self.layout.scales_per_row() {
            0 => self.floats(),
            scales => {
                let all = self.floats().reshape([rows, scales]);
                all.select(0, ids.clone()).reshape([count * scales])
            }
        };
        let codes = codes.select(0, ids); // [count, words]
        let layout = PackedLayout {
            d_in: count,
            ..self.layout
        };
        let values = unpack(codes.reshape([count * words]), floats, layout);
        values.reshape([batch, seq, d_out])
    }

    /// Returns `x Wᵀ`: the output layer that an embedding is tied to.
    ///
    /// # Shapes
    /// - `x`: `[..., d_out]`
    /// - returns `[..., d_in]`
    pub(crate) fn linear_transposed<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let layout = self.layout.transpose();
        packed_linear(x, self.codes.val(), self.floats(), None, layout)
    }

    /// Computes the cross entropy of hidden states through this weight, or through its transpose.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, d_in]`, or `[rows, d_out]` for the transpose
    pub(crate) fn head_loss(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        options: &CrossEntropy,
        transpose: bool,
    ) -> HeadLoss {
        let layout = if transpose {
            self.layout.transpose()
        } else {
            self.layout
        };
        let (codes, floats) = (self.codes.val(), self.floats());
        packed_head_loss(hidden, codes, floats, layout, targets, options)
    }
}

/// Returns the id of a parameter of a packed weight. It depends on the weight's id alone, which is the same in every process.
fn part_id(weight: ParamId, name: &str) -> ParamId {
    param_id(&format!("{weight}.{PACKED_COMPONENT}.{name}"))
}

// As in Burn's own layers: memory that lives as long as the model is allocated apart.
fn codes_param(weight: ParamId, codes: TensorData, device: &Device) -> Param<Tensor<1, Int>> {
    let codes = device.memory_persistent_allocations(codes, |codes| {
        Tensor::<1, Int>::from_data(codes, (device, DType::I32))
    });
    Param::initialized(part_id(weight, "codes"), codes)
}

fn floats_param(
    weight: ParamId,
    name: &str,
    values: TensorData,
    device: &Device,
) -> Param<Tensor<1>> {
    let values = device.memory_persistent_allocations(values, |values| {
        Tensor::<1>::from_data(values, (device, DType::F32))
    });
    Param::initialized(part_id(weight, name), values).set_require_grad(false)
}

fn vector<E: Element>(values: Vec<E>) -> TensorData {
    let count = values.len();
    TensorData::new(values, [count])
}

impl Reparameterization for PackedWeight {
    const NAME: &'static str = PACKED_COMPONENT;

    /// Returns the dequantized weight.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if is_bare() || (are_parts_kept() && self.rows_per_part().is_some()) {
            base
        } else {
            self.dequantize().reshape(base.shape())
        }
    }
}
