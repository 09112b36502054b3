//! Forward pass of an adapter on the activation path.

use super::base_weight::BaseWeight;
use super::dora::norms;
use super::low_rank::{LowRankAdapter, widened};
use crate::ops::linear;
use burn::tensor::module::embedding;
use burn::tensor::{Int, Tensor};

impl LowRankAdapter {
    /// Returns `x W + b + s (drop(x) A) B`. With DoRA it is `g ⊙ (x W + s (x A) B) + b`, where `g` is the magnitude
    /// over the norm of `W + s A B`. As in PEFT, dropout applies to all terms but the base's own output:
    /// `x W + b + (g − 1) ⊙ drop(x) W + g ⊙ s (drop(x) A) B`.
    ///
    /// # Shapes
    /// - `x`: `[..., d_in]`, `base`: `[d_in, d_out]`, `bias`: `[d_out]`
    /// - returns `[..., d_out]`
    pub(crate) fn linear<const D: usize>(
        &self,
        x: Tensor<D>,
        base: &BaseWeight<'_>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let (a, b) = self.factors();
        let dropped = self.dropout.forward(x.clone());
        let Some(gain) = self.gain(|| base.dense(), &a, &b) else {
            return base.adapted(x, dropped, [a, b], bias, self.scale);
        };
        let update = |x: Tensor<D>| {
            let y = base.adapted(x.clone(), x, [a, b], None, self.scale);
            let dtype = y.dtype();
            y * gain.cast(dtype).unsqueeze()
        };
        if self.dropout.is_active_on(&x.device()) {
            update(dropped.clone()) + base.linear(x - dropped, bias)
        } else {
            let y = update(x);
            match bias {
                None => y,
                Some(bias) => {
                    let dtype = y.dtype();
                    y + bias.cast(dtype).unsqueeze()
                }
            }
        }
    }

    /// Returns `W[ids] + s A[ids] B`, with DoRA multiplied by the gain.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`, `w`: `[vocabulary, dimension]`
    /// - returns `[batch, seq, dimension]`
    pub(crate) fn embedding(&self, ids: Tensor<2, Int>, w: &BaseWeight<'_>) -> Tensor<3> {
        let (a, b) = self.factors();
        let gain = self.gain(|| w.dense(), &a, &b);
        let low = embedding(a, ids.clone()).mul_scalar(self.scale);
        let rows = w.embedding(ids);
        let dtype = rows.dtype();
        let y = rows + linear(low, b, None).cast(dtype);
        match gain {
            None => y,
            Some(gain) => y * gain.cast(dtype).unsqueeze(),
        }
    }

    /// Returns the gain of DoRA, `m / ‖W + s A B‖`, `[d_out]`.
    pub(crate) fn gain(
        &self,
        w: impl FnOnce() -> Tensor<2>,
        a: &Tensor<2>,
        b: &Tensor<2>,
    ) -> Option<Tensor<1>> {
        let magnitude = self.magnitude.as_ref()?.val();
        let [w, a, b] = [w(), a.clone(), b.clone()].map(widened);
        Some(widened(magnitude) / norms(w, a, b, self.scale))
    }
}
