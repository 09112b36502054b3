//! What a token sees. That it sees nothing behind itself is the attention's own business.

use burn::tensor::{Bool, Tensor};
use lora_core::ops::Segments;

/// What hides tokens from others, made once for all layers.
#[derive(Clone, Debug)]
pub struct Visible {
    /// Added to the scores.
    pub(super) padding: Option<Tensor<4>>,
    /// The texts that the one row is packed of.
    pub(super) segments: Option<Segments>,
}

impl Visible {
    /// Each text by itself.
    pub(super) fn within(segments: &Segments) -> Self {
        Self {
            padding: None,
            segments: Some(segments.clone()),
        }
    }
}

/// Added to the score of a hidden position.
///
/// The exponential of it against any real score is exactly zero. It is finite, so that a row of
/// which everything is hidden, as that of a padding token on the left, gives some average and not
/// NaN.
const HIDDEN: f32 = -1e9;

/// What is added to the attention scores, made once for all layers; `None` where nothing is hidden.
///
/// # Shapes
/// - `attention_mask`: `[batch, keys]`, true for a token, false for padding
/// - returns `[batch, 1, 1, keys]`
///
/// # Panics
/// If the mask has another length.
pub(super) fn hidden_padding(
    keys: usize,
    attention_mask: Option<Tensor<2, Bool>>,
) -> Option<Tensor<4>> {
    attention_mask.map(|mask| {
        let [_, length] = mask.dims();
        assert_eq!(
            length, keys,
            "the attention mask covers {length} tokens, but there are {keys} in the cache and new"
        );
        let hidden = mask.bool_not().float() * HIDDEN;
        hidden.unsqueeze_dims::<4>(&[1, 2])
    })
}

/// The mask of texts behind virtual tokens, which every token sees.
///
/// # Shapes
/// - `mask`: `[batch, 1, 1, keys]`
/// - returns `[batch, 1, 1, virtual_tokens + keys]`
pub(super) fn see_before(mask: Tensor<4>, virtual_tokens: usize) -> Tensor<4> {
    if virtual_tokens == 0 {
        return mask;
    }
    let shape = [mask.dims()[0], 1, 1, virtual_tokens];
    let seen = Tensor::zeros(shape, (&mask.device(), mask.dtype()));
    Tensor::cat(vec![seen, mask], 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn padding_is_hidden_from_every_token_of_its_row() {
        let device = Device::flex();
        let real = Tensor::<2, Bool>::from_data([[false, true], [true, true]], &device);
        let mask = hidden_padding(2, Some(real)).unwrap();
        assert_eq!(mask.dims(), [2, 1, 1, 2]);
        let hidden: Vec<f32> = mask
            .clone()
            .into_data()
            .iter::<f32>()
            .map(|x| x / HIDDEN)
            .collect();
        assert_eq!(hidden, [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(see_before(mask.clone(), 0).dims(), [2, 1, 1, 2]);
        let behind: Vec<f32> = see_before(mask, 2).into_data().iter::<f32>().collect();
        assert_eq!(behind, [0.0, 0.0, HIDDEN, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(hidden_padding(2, None).is_none());
    }

    #[test]
    #[should_panic(expected = "covers 2 tokens")]
    fn a_mask_of_another_length_panics() {
        let device = Device::flex();
        let real = Tensor::<2, Bool>::from_data([[true, true]], &device);
        hidden_padding(3, Some(real));
    }
}
