//! Projection with cross entropy, on tensors.

use super::{CrossEntropy, HeadLossOps};
use crate::ops::packed::PackedLayout;
use burn::backend::Dispatch;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

/// Loss, and results of the rows.
#[derive(Clone, Debug)]
pub struct HeadLoss {
    /// Loss summed over the rows with a target, `[1]`.
    pub loss: Tensor<1>,
    /// Negative log-likelihood of each row's target, without smoothing and weights, `[rows]`; zero without a target. Not
    /// tracked by autodiff.
    pub nll: Tensor<1>,
    /// Most likely class of each row, `[rows]`.
    pub best: Tensor<1, Int>,
}

impl HeadLoss {
    fn from_dispatch(
        loss: FloatTensor<Dispatch>,
        nll: FloatTensor<Dispatch>,
        best: IntTensor<Dispatch>,
    ) -> Self {
        Self {
            loss: Tensor::from_dispatch(loss),
            nll: Tensor::from_dispatch(nll),
            best: Tensor::from_dispatch(best),
        }
    }
}

/// Projects hidden states to classes and computes their cross entropy, without all logits at once.
///
/// # Shapes
/// - `hidden`: `[rows, d]`, `weight`: `[d, classes]`
/// - `targets`: `[rows]`, in `0..classes`; a negative target is ignored
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Int, Tensor};
/// use lora_core::ops::{CrossEntropy, head_loss};
///
/// let device = Device::flex().autodiff();
/// let x = Tensor::<2>::from_floats([[1.0, 0.0], [5.0, 5.0]], &device).require_grad();
/// let w = Tensor::<2>::from_floats([[0.0, 3f32.ln()], [0.0, 0.0]], &device);
/// let targets = Tensor::<1, Int>::from_ints([0, -1], &device);
/// let found = head_loss(x.clone(), w, targets, &CrossEntropy::default());
/// // The logits of the first row are [0, ln 3], its probabilities [1/4, 3/4]. The second is ignored.
/// assert!((found.loss.clone().into_scalar::<f32>() - 4f32.ln()).abs() < 1e-6);
/// let dx = x.grad(&found.loss.backward()).unwrap().into_data().to_vec::<f32>().unwrap();
/// assert!((dx[0] - 0.75 * 3f32.ln()).abs() < 1e-6 && dx[1..] == [0.0, 0.0, 0.0]);
/// ```
///
/// # Panics
/// Panics on shapes that do not match, a target outside the classes, and a backend whose feature of this crate is off.
pub fn head_loss(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<1, Int>,
    options: &CrossEntropy,
) -> HeadLoss {
    let (loss, nll, best) = <Dispatch as HeadLossOps>::head_loss(
        hidden.into_dispatch(),
        weight.into_dispatch(),
        targets.into_dispatch(),
        options.clone(),
    );
    HeadLoss::from_dispatch(loss, nll, best)
}

/// Computes [`head_loss`] with a packed weight, `[d, classes]`.
///
/// # Panics
/// Panics in the cases of [`head_loss`].
pub(crate) fn packed_head_loss(
    hidden: Tensor<2>,
    packed: Tensor<1, Int>,
    scales: Tensor<1>,
    layout: PackedLayout,
    targets: Tensor<1, Int>,
    options: &CrossEntropy,
) -> HeadLoss {
    let (loss, nll, best) = <Dispatch as HeadLossOps>::packed_head_loss(
        hidden.into_dispatch(),
        packed.into_dispatch(),
        scales.into_dispatch(),
        layout,
        targets.into_dispatch(),
        options.clone(),
    );
    HeadLoss::from_dispatch(loss, nll, best)
}

/// Computes the loss of [`head_loss`] from logits, for a head that is more than one matrix.
///
/// # Shapes
/// - `logits`: `[rows, classes]`, `targets`: `[rows]`
///
/// # Panics
/// Panics in the cases of [`head_loss`].
pub fn loss_of_logits(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    options: &CrossEntropy,
) -> HeadLoss {
    let [_, classes] = logits.dims();
    let device = logits.device();
    options.check(classes);
    let logits = match options.logit_cap {
        None => logits,
        Some(cap) => (logits / cap).tanh() * cap,
    };
    let best = logits.clone().detach().argmax(1).squeeze_dim::<1>(1);
    let log_p = log_softmax(logits, 1);
    // 1 for rows with a target, else 0.
    let counts = (targets.clone() + 1)
        .clamp(0, 1)
        .float()
        .cast(log_p.dtype());
    let counts = counts.unsqueeze_dim::<2>(1); // [rows, 1]
    let index = targets.clamp_min(0).unsqueeze_dim::<2>(1);
    let nll = log_p.clone().gather(1, index.clone()).neg() * counts.clone();
    let weights = options.class_weights.as_ref().map(|weights| {
        let data = TensorData::new(weights.clone(), [classes]);
        Tensor::<1>::from_data(data, (&device, log_p.dtype()))
    });
    let weighted = match &weights {
        None => nll.clone(),
        Some(weights) => {
            let own = weights.clone().select(0, index.squeeze_dim::<1>(1));
            nll.clone() * own.unsqueeze_dim::<2>(1)
        }
    };
    let mut loss = weighted.sum();
    if options.label_smoothing > 0.0 {
        let mut all = log_p.neg() * counts;
        if let Some(weights) = weights {
            all = all * weights.unsqueeze();
        }
        let smoothing = options.label_smoothing;
        loss = loss * (1.0 - smoothing) + all.sum() * (smoothing / classes as f64);
    }
    HeadLoss {
        loss,
        nll: nll.detach().squeeze_dim::<1>(1),
        best,
    }
}
