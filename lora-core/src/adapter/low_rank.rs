//! Low-rank factors on a frozen weight: [`LowRankAdapter`].

use super::switch::AdapterSwitch;
use crate::bare::is_bare;
use crate::layout::{ADAPTER_COMPONENT, FusedLayout, Slices};
use crate::ops::Dropout;
use crate::quantize::PackedWeight;
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::{DType, Tensor};

/// Start values of the factors, if their product is not zero: the update is
/// `ΔW = scale · (A B − A₀ B₀)`, so that training begins at the pretrained model.
///
/// PEFT subtracts `A₀ B₀` from the base weight instead. Here the base stays as it is, and the adapter can be
/// disabled, detached and saved like any other.
#[derive(Module, Debug)]
pub(crate) struct StartingFactors {
    /// Start value of [`LowRankAdapter::a`], frozen.
    pub a: Param<Tensor<2>>,
    /// Start value of [`LowRankAdapter::b`], frozen.
    pub b: Param<Tensor<2>>,
}

/// A low-rank update `ΔW = scale · A B` of a frozen weight (Hu et al. 2021, section 4.1).
///
/// Not to be confused with [`burn::module::LoraAdapter`], the adapter of Burn's own `apply_lora`.
///
/// It lives on the weight's [`Param`], so that records, devices, freezing, `valid()` and optimizers
/// treat its factors as parameters of the module, under the names `lora.a`, `lora.b` and
/// `lora.magnitude`.
#[derive(Module, Debug)]
pub struct LowRankAdapter {
    /// Factor `A`, `[d_in, rank]`; with slices `[d_in, slices · rank]`.
    pub a: Param<Tensor<2>>,
    /// Factor `B`, `[rank, d_out]`; with slices the blocks `[rank, width]` of the parts one after the other, `[slices · rank, width]`
    /// for parts of one width, else `[rank, all widths]`.
    pub b: Param<Tensor<2>>,
    /// Magnitude of DoRA, `[d_out]`: the trainable norm of each output's weights.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// Start values of the factors, if their product is not zero.
    pub(crate) start: Option<StartingFactors>,
    /// Frozen weight, if it is packed: the parameter then holds a placeholder.
    pub(crate) packed: Option<PackedWeight>,
    /// Dropout on the adapter's input, in training.
    pub(crate) dropout: Dropout,
    /// Factor that `A B` is multiplied by.
    pub(crate) scale: f64,
    #[module(skip)]
    pub(crate) slices: Option<Slices>,
    #[module(skip)]
    pub(crate) switch: AdapterSwitch,
}

impl LowRankAdapter {
    /// Returns the factor that `A B` is multiplied by: α/r, or α/√r with rank-stabilized scaling.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Returns true if the adapter takes part in the forward pass.
    pub fn is_enabled(&self) -> bool {
        self.switch.is_active()
    }

    /// Returns `B` as `[total rank, d_out]`.
    ///
    /// A sliced adapter has a block `[rank, width]` for each slice. The result has each block at
    /// its slice's columns and its own rows, and zeros elsewhere: the equivalent standard adapter of rank
    /// `slices · rank`.
    pub fn b_dense(&self) -> Tensor<2> {
        self.dense(self.b.val())
    }

    fn dense(&self, b: Tensor<2>) -> Tensor<2> {
        match &self.slices {
            None => b,
            Some(slices) => expand(b, slices),
        }
    }

    /// Returns `A` `[d_in, R]` and `B` `[R, d_out]` of the equivalent standard adapter: slices are
    /// expanded, and with start values `R` is twice the rank, since
    /// `A B − A₀ B₀ = [A A₀] [B −B₀]ᵀ`.
    pub fn factors(&self) -> (Tensor<2>, Tensor<2>) {
        let (a, b) = (self.a.val(), self.b_dense());
        match &self.start {
            None => (a, b),
            Some(start) => (
                Tensor::cat(vec![a, start.a.val()], 1),
                Tensor::cat(vec![b, self.dense(start.b.val()).neg()], 0),
            ),
        }
    }

    /// Returns the dense update `scale · (A B − A₀ B₀)`, `[d_in, d_out]`, before DoRA's rescaling. It is computed in f32 if
    /// the factors are in half precision.
    pub fn delta(&self) -> Tensor<2> {
        let (a, b) = self.factors();
        widened(a).matmul(widened(b)).mul_scalar(self.scale)
    }
}

/// Converts half precision to f32.
pub(super) fn widened<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.cast(DType::F32),
        _ => tensor,
    }
}

/// Expands the blocks of the adapted parts, each `[r, width]`, to `[G · r, d_out]`, with block `g` at the columns of the g-th adapted
/// part.
pub(crate) fn expand(b: Tensor<2>, slices: &Slices) -> Tensor<2> {
    let (rank, d_out) = slices.of_blocks(b.dims());
    let rows = slices.adapted.len() * rank;
    let (device, dtype) = (b.device(), b.dtype());
    let zeros = |rows: usize, width: usize| Tensor::<2>::zeros([rows, width], (&device, dtype));
    let mut blocks = {
        let all: Tensor<1> = b.flatten(0, 1);
        let mut start = 0;
        let blocks = slices.widths(d_out).map(|width| {
            let block = all.clone().narrow(0, start, rank * width);
            start += rank * width;
            block.reshape([rank, width])
        });
        blocks.collect::<Vec<_>>().into_iter().enumerate()
    };
    let mut columns = Vec::with_capacity(slices.parts);
    for part in 0..slices.parts {
        if !slices.adapted.contains(&part) {
            columns.push(zeros(rows, slices.width(part, d_out)));
            continue;
        }
        let (block, values) = blocks.next().expect("a block for each adapted part");
        let width = values.dims()[1];
        let (before, after) = (block * rank, rows - (block + 1) * rank);
        let mut parts = Vec::with_capacity(3);
        if before > 0 {
            parts.push(zeros(before, width));
        }
        parts.push(values);
        if after > 0 {
            parts.push(zeros(after, width));
        }
        columns.push(Tensor::cat(parts, 0));
    }
    let dense = Tensor::cat(columns, 1); // [G * r, d_out]
    match slices.layout {
        FusedLayout::PartByPart | FusedLayout::Grouped { .. } => dense,
        FusedLayout::HeadByHead { heads } => dense
            .reshape([rows, slices.parts, heads, d_out / slices.parts / heads])
            .swap_dims(1, 2)
            .reshape([rows, d_out]),
    }
}

impl Reparameterization for LowRankAdapter {
    const NAME: &'static str = ADAPTER_COMPONENT;

    /// Returns `base + scale · A B`, with DoRA rescaled to the magnitudes, or `base` itself while the adapter is disabled. A
    /// packed base is dequantized to f32. The sum with a half-precision base is taken in f32 and rounded once.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if is_bare() {
            return base;
        }
        let base = match &self.packed {
            None => base,
            Some(packed) => packed.dequantize().reshape(base.shape()),
        };
        if !self.is_enabled() {
            return base;
        }
        let delta = self.delta();
        let (shape, dtype) = (base.shape(), base.dtype());
        let base = base.reshape(delta.dims());
        let sum = widened(base) + delta;
        let sum = match &self.magnitude {
            None => sum,
            Some(magnitude) => {
                let norm = sum.clone().detach().square().sum_dim(0).sqrt(); // [1, d_out]
                sum * (widened(magnitude.val()).unsqueeze::<2>() / norm)
            }
        };
        sum.cast(dtype).reshape(shape)
    }
}
