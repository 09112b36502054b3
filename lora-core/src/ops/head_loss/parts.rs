//! Projection in parts of columns with cross entropy, for a weight that the device cannot bind in one buffer.

use super::{CrossEntropy, HeadLoss, HeadLossOps, chunk_bytes, head_loss, rows_per_chunk};
use crate::ops::linear;
use burn::backend::Dispatch;
use burn::tensor::{Int, Tensor};

/// Computes [`head_loss`] with a weight in parts of columns. More than one part is frozen and gets no gradient.
///
/// # Shapes
/// - `hidden`: `[rows, d]`, `parts`: `[d, classes of the part]`, in order
/// - `targets`: `[rows]`, in the classes of all parts; a negative target is ignored
///
/// # Panics
/// Panics in the cases of [`head_loss`], and without parts.
pub fn head_loss_in_parts(
    hidden: Tensor<2>,
    parts: Vec<Tensor<2>>,
    targets: Tensor<1, Int>,
    options: &CrossEntropy,
) -> HeadLoss {
    let [rows, d] = hidden.dims();
    // Without rows, the loss is zero for any weight.
    if parts.len() == 1 || rows == 0 {
        return head_loss(hidden, parts[0].clone(), targets, options);
    }
    let gradient = hidden.is_tracked();
    // The gradient is computed here, as in `head_loss`: autodiff would keep the logits of all rows.
    let all = hidden.clone().without_autodiff();
    let parts: Vec<_> = parts.into_iter().map(Tensor::without_autodiff).collect();
    let targets = targets.without_autodiff();
    let classes = parts.iter().map(|part| part.dims()[1]).sum();
    let chunk_rows = rows_per_chunk(rows, classes, chunk_bytes(rows, d));
    let (mut losses, mut nlls, mut bests, mut gradients) = (vec![], vec![], vec![], vec![]);
    for start in (0..rows).step_by(chunk_rows) {
        let count = chunk_rows.min(rows - start);
        let x = all.clone().narrow(0, start, count);
        let logits = parts
            .iter()
            .map(|part| linear(x.clone(), part.clone(), None));
        let logits = Tensor::cat(logits.collect(), 1); // [count, classes]
        // The wider of the two types.
        let dtype = logits.dtype();
        let (loss, nll, best, grad_logits) = <Dispatch as HeadLossOps>::score_logits(
            logits.into_dispatch(),
            targets.clone().narrow(0, start, count).into_dispatch(),
            options.clone(),
            gradient,
        );
        losses.push(Tensor::<1>::from_dispatch(loss));
        nlls.push(Tensor::<1>::from_dispatch(nll));
        bests.push(Tensor::<1, Int>::from_dispatch(best));
        gradients.extend(grad_logits.map(|grad| {
            let grad = Tensor::<2>::from_dispatch(grad).cast(dtype);
            let mut start = 0;
            let terms = parts.iter().map(|part| {
                let classes = part.dims()[1];
                let own = grad.clone().narrow(1, start, classes);
                start += classes;
                linear(own, part.clone().transpose(), None) // [count, d]
            });
            let sum = terms.reduce(|sum, term| sum + term);
            sum.expect("a weight has a part").cast(x.dtype())
        }));
    }
    let mut loss = Tensor::cat(losses, 0).sum();
    let (mut nll, mut best) = (Tensor::cat(nlls, 0), Tensor::cat(bests, 0));
    if hidden.is_autodiff() {
        (loss, nll, best) = (loss.autodiff(), nll.autodiff(), best.autodiff());
    }
    if gradient {
        // Adds zero, whose gradient is the one computed above.
        let carrier = (hidden * Tensor::cat(gradients, 0))
            .sum()
            .cast(loss.dtype());
        loss = loss + (carrier.clone() - carrier.detach());
    }
    HeadLoss { loss, nll, best }
}
