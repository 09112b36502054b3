//! The same on tensors.

use super::{CrossEntropy, HeadLossOps};
use burn::backend::Dispatch;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, TensorData};

/// A loss, and what is known of the rows it is of.
#[derive(Clone, Debug)]
pub struct HeadLoss {
    /// Summed over the rows that have a target, `[1]`.
    pub loss: Tensor<1>,
    /// `-log p` of each row's target, without smoothing and weights, `[rows]`; zero without a target. It has no gradient.
    pub nll: Tensor<1>,
    /// The likeliest class of each row, `[rows]`.
    pub best: Tensor<1, Int>,
}

/// Projects hidden states to classes, and takes the cross entropy with their targets, without making all logits at once.
///
/// # Shapes
/// - `hidden`: `[rows, d]`, `weight`: `[d, classes]`
/// - `targets`: `[rows]`, in `0..classes`; a negative one counts for nothing
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
/// // The logits of the first row are [0, ln 3], its probabilities [1/4, 3/4]. The second does not count.
/// assert!((found.loss.clone().into_scalar::<f32>() - 4f32.ln()).abs() < 1e-6);
/// let dx = x.grad(&found.loss.backward()).unwrap().into_data().to_vec::<f32>().unwrap();
/// assert!((dx[0] - 0.75 * 3f32.ln()).abs() < 1e-6 && dx[1..] == [0.0, 0.0, 0.0]);
/// ```
///
/// # Panics
/// On shapes that do not fit, a target that is no class, and a backend whose feature of this crate is off.
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
    HeadLoss {
        loss: Tensor::from_dispatch(loss),
        nll: Tensor::from_dispatch(nll),
        best: Tensor::from_dispatch(best),
    }
}

/// [`head_loss`] of logits that are there already, for a head that is more than a matrix.
///
/// # Shapes
/// - `logits`: `[rows, classes]`, `targets`: `[rows]`
///
/// # Panics
/// As [`head_loss`].
pub fn loss_of_logits(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    options: &CrossEntropy,
) -> HeadLoss {
    let [_, classes] = logits.dims();
    let device = logits.device();
    options.check(classes);
    let best = logits.clone().detach().argmax(1).squeeze_dim::<1>(1);
    let log_p = log_softmax(logits, 1);
    // One where a row counts, else zero.
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
