//! The adapter itself: factors on a frozen weight, held by the parameter.

mod bias;
mod dora;
mod forward;
mod switch;

pub use bias::LoraBias;
pub(crate) use dora::norms;
pub use switch::AdapterSwitch;

use crate::Dropout;
use crate::bare::is_bare;
use crate::packed::PackedWeight;
use crate::targets::{FusedLayout, Slices};
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::{DType, Tensor};

/// The values that factors started at, where these are not zero together: the update is what was
/// learnt since, `ΔW = scale · (A B − A₀ B₀)`, and training begins at the pretrained model.
///
/// PEFT takes `A₀ B₀` from the base weight instead. Here the base stays as it is: the adapter can be
/// turned off, taken off and saved like any other.
#[derive(Module, Debug)]
pub(crate) struct StartingFactors {
    /// As [`LowRankAdapter::a`]; frozen.
    pub a: Param<Tensor<2>>,
    /// As [`LowRankAdapter::b`]; frozen.
    pub b: Param<Tensor<2>>,
}

/// A low-rank update `ΔW = scale · A B` of a frozen weight (Hu et al. 2021, section 4.1).
///
/// It lives on the weight's [`Param`], so that records, devices, freezing, `valid()` and optimizers
/// treat its factors as parameters of the module, under the names `lora.a`, `lora.b` and
/// `lora.magnitude`.
#[derive(Module, Debug)]
pub struct LowRankAdapter {
    /// `[d_in, rank]`; with slices `[d_in, slices · rank]`.
    pub a: Param<Tensor<2>>,
    /// `[rank, d_out]`; with slices `[slices · rank, d_out / parts]`.
    pub b: Param<Tensor<2>>,
    /// `[d_out]`, with DoRA: the norm of each output's weights, which trains apart from their direction.
    pub magnitude: Option<Param<Tensor<1>>>,
    /// Where the factors started, if not at zero.
    pub(crate) start: Option<StartingFactors>,
    /// The frozen weight, where it is kept in few bits: the parameter holds a placeholder then.
    pub(crate) packed: Option<PackedWeight>,
    /// On the adapter's input, while training.
    pub(crate) dropout: Dropout,
    /// What `A B` is multiplied by.
    pub(crate) scale: f64,
    #[module(skip)]
    pub(crate) slices: Option<Slices>,
    #[module(skip)]
    pub(crate) switch: AdapterSwitch,
}

impl LowRankAdapter {
    /// What `A B` is multiplied by: α/r, or α/√r with rank-stabilized scaling.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Whether the adapter takes part in the forward pass.
    pub fn is_enabled(&self) -> bool {
        self.switch.is_active()
    }

    /// `B` as `[total rank, d_out]`.
    ///
    /// A sliced adapter keeps one `[rank, d_out / parts]` block a slice; here each block stands at
    /// its slice's columns and its own rows, zeros elsewhere, which is the standard adapter of rank
    /// `slices · rank` that computes the same.
    pub fn b_dense(&self) -> Tensor<2> {
        self.dense(self.b.val())
    }

    fn dense(&self, b: Tensor<2>) -> Tensor<2> {
        match &self.slices {
            None => b,
            Some(slices) => expand(b, slices),
        }
    }

    /// `A` `[d_in, R]` and `B` `[R, d_out]` of the standard adapter that computes the same: slices are
    /// expanded, and where the factors started at something, `R` is twice the rank:
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

    /// `scale · A B`, less what the factors started at: the size of the weight. What DoRA does to the
    /// sum comes after it. Of factors in half precision it is taken in f32.
    pub fn delta(&self) -> Tensor<2> {
        let (a, b) = self.factors();
        widened(a).matmul(widened(b)).mul_scalar(self.scale)
    }
}

/// In f32, where it is in half precision.
fn widened<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.cast(DType::F32),
        _ => tensor,
    }
}

/// `[G · r, width]` → `[G · r, parts · width]`, block `g` at the columns of the g-th adapted part.
pub(crate) fn expand(b: Tensor<2>, slices: &Slices) -> Tensor<2> {
    let [rows, width] = b.dims();
    let rank = rows / slices.adapted.len();
    let device = b.device();
    let zeros = |rows: usize, width: usize| Tensor::<2>::zeros([rows, width], (&device, b.dtype()));
    let mut columns = Vec::with_capacity(slices.parts);
    for part in 0..slices.parts {
        let block = slices.adapted.iter().position(|&adapted| adapted == part);
        columns.push(match block {
            None => zeros(rows, width),
            Some(block) => {
                let (start, end) = (block * rank, (block + 1) * rank);
                let mut parts = Vec::with_capacity(3);
                if start > 0 {
                    parts.push(zeros(start, width));
                }
                parts.push(b.clone().narrow(0, start, rank));
                if end < rows {
                    parts.push(zeros(rows - end, width));
                }
                Tensor::cat(parts, 0)
            }
        });
    }
    let dense = Tensor::cat(columns, 1); // [G * r, parts * width]
    match slices.layout {
        FusedLayout::PartByPart => dense,
        FusedLayout::HeadByHead { heads } => dense
            .reshape([rows, slices.parts, heads, width / heads])
            .swap_dims(1, 2)
            .reshape([rows, slices.parts * width]),
    }
}

impl Reparameterization for LowRankAdapter {
    const NAME: &'static str = crate::modules::ADAPTER_COMPONENT;

    /// `base + scale · A B`, or `base` itself while the adapter is off; with DoRA its columns are
    /// brought to their magnitudes. A packed base is dequantised to f32 first. A half-precision base is added to in f32 and rounded once.
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
