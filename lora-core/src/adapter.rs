//! The adapter itself: factors on a frozen weight, held by the parameter.

use crate::Dropout;
use crate::targets::{FusedLayout, Slices};
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::{DType, Tensor};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Turns the adapters of one attach on and off. Clones act on the same adapters.
#[derive(Clone, Debug)]
pub struct AdapterSwitch(Arc<AtomicBool>);

impl AdapterSwitch {
    pub(crate) fn on() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Whether the adapters take part in the forward pass.
    pub fn is_enabled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes the adapters take part in the forward pass, or not: the base model answers then, at
    /// no cost. Every clone of the module follows.
    pub fn set_enabled(&self, enabled: bool) {
        self.0.store(enabled, Ordering::Relaxed);
    }
}

thread_local! {
    /// Set while adapters are taken off on this thread; see [`without_adapters`].
    static TAKEN_OFF: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` while adapters compose to their bare base on this thread.
///
/// Burn has no way to take a reparameterization off but to replace the parameter by its composed
/// value; with this, that value is the base itself. A switch would do it too, but clones share it.
pub(crate) fn without_adapters<T>(work: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            TAKEN_OFF.set(false);
        }
    }
    TAKEN_OFF.set(true);
    let _restore = Restore;
    work()
}

/// A low-rank update `ΔW = scale · A B` of a frozen weight (Hu et al. 2021, section 4.1).
///
/// It lives on the weight's [`Param`], so that records, devices, freezing, `valid()` and optimizers
/// treat its factors as parameters of the module, under the names `lora.a` and `lora.b`.
#[derive(Module, Debug)]
pub struct LoraAdapter {
    /// `[d_in, rank]`; with slices `[d_in, slices · rank]`.
    pub a: Param<Tensor<2>>,
    /// `[rank, d_out]`; with slices `[slices · rank, d_out / parts]`.
    pub b: Param<Tensor<2>>,
    /// On the adapter's input, while training.
    pub(crate) dropout: Dropout,
    /// What `A B` is multiplied by.
    pub(crate) scale: f64,
    #[module(skip)]
    pub(crate) slices: Option<Slices>,
    #[module(skip)]
    pub(crate) switch: AdapterSwitch,
}

impl LoraAdapter {
    /// What `A B` is multiplied by: α/r, or α/√r with rank-stabilized scaling.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Whether the adapter takes part in the forward pass.
    pub fn is_enabled(&self) -> bool {
        self.switch.is_enabled() && !TAKEN_OFF.get()
    }

    /// `B` as `[total rank, d_out]`.
    ///
    /// A sliced adapter keeps one `[rank, d_out / parts]` block a slice; here each block stands at
    /// its slice's columns and its own rows, zeros elsewhere, which is the standard adapter of rank
    /// `slices · rank` that computes the same.
    pub fn b_dense(&self) -> Tensor<2> {
        let b = self.b.val();
        match &self.slices {
            None => b,
            Some(slices) => expand(b, slices),
        }
    }

    /// `scale · A B`, the size of the weight.
    pub fn delta(&self) -> Tensor<2> {
        self.a.val().matmul(self.b_dense()).mul_scalar(self.scale)
    }
}

/// `[G · r, width]` → `[G · r, parts · width]`, block `g` at the columns of the g-th adapted part.
fn expand(b: Tensor<2>, slices: &Slices) -> Tensor<2> {
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

impl Reparameterization for LoraAdapter {
    const NAME: &'static str = crate::modules::ADAPTER_COMPONENT;

    /// `base + scale · A B`, or `base` itself while the adapter is off. A half-precision base is
    /// added to in f32 and rounded once.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if !self.is_enabled() {
            return base;
        }
        let delta = self.delta().reshape(base.shape());
        let dtype = base.dtype();
        match dtype {
            DType::F16 | DType::BF16 => {
                (base.cast(DType::F32) + delta.cast(DType::F32)).cast(dtype)
            }
            _ => base + delta,
        }
    }
}
