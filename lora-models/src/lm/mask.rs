//! Masks of padding and of packed texts. The causal mask belongs to the attention.

use crate::generate::KvCache;
use crate::prefix::PrefixLayer;
use burn::tensor::{Bool, Tensor};
use lora_core::ops::Segments;

/// Attention mask beside the causal one, and the virtual tokens, built once for all layers.
#[derive(Clone, Debug, Default)]
pub struct TextMask {
    /// Bias of the scores, `[batch, 1, 1, keys]`: -1e9 at padding.
    pub(crate) padding: Option<Tensor<4>>,
    /// Texts that the row is packed of; none attends to another.
    pub(crate) segments: Option<Segments>,
    /// Keys and values of virtual tokens in each layer, which every token attends to that has them in its window; none without
    /// virtual tokens.
    pub(crate) virtual_tokens: Vec<PrefixLayer>,
}

impl TextMask {
    /// Masks packed texts from each other.
    pub(crate) fn within(segments: &Segments) -> Self {
        Self {
            segments: Some(segments.clone()),
            ..Self::default()
        }
    }
}

/// Cache of keys and values, and the index of the layer that uses it.
pub(crate) struct Past<'a> {
    pub(crate) cache: &'a mut KvCache,
    pub(crate) layer: usize,
}

/// Bias of the score of a masked position.
///
/// Its exponential beside any real score is exactly zero. It is finite, so that a fully masked row, such as that of a
/// padding token on the left, gives an average and not NaN.
const HIDDEN: f32 = -1e9;

/// Returns the bias of the attention scores that masks padding; `None` without padding.
///
/// # Shapes
/// - `attention_mask`: `[batch, keys]`, true for a token, false for padding
/// - returns `[batch, 1, 1, keys]`
///
/// # Panics
/// If the mask does not cover `keys` tokens.
pub(crate) fn padding_bias(
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

/// Extends a mask by the virtual tokens of a prefix, which it hides from no token. They stand before padding on the left too, so that a
/// sliding window reaches them from fewer tokens of a padded row.
///
/// # Shapes
/// - `mask`: `[batch, 1, 1, keys]`
/// - returns `[batch, 1, 1, virtual_tokens + keys]`
pub(crate) fn extend_by_prefix(mask: Tensor<4>, virtual_tokens: usize) -> Tensor<4> {
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
        let mask = padding_bias(2, Some(real)).unwrap();
        assert_eq!(mask.dims(), [2, 1, 1, 2]);
        let hidden: Vec<f32> = mask
            .clone()
            .into_data()
            .iter::<f32>()
            .map(|x| x / HIDDEN)
            .collect();
        assert_eq!(hidden, [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(extend_by_prefix(mask.clone(), 0).dims(), [2, 1, 1, 2]);
        let behind: Vec<f32> = extend_by_prefix(mask, 2)
            .into_data()
            .iter::<f32>()
            .collect();
        assert_eq!(behind, [0.0, 0.0, HIDDEN, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!(padding_bias(2, None).is_none());
    }

    #[test]
    #[should_panic(expected = "covers 2 tokens")]
    fn a_mask_of_another_length_panics() {
        let device = Device::flex();
        let real = Tensor::<2, Bool>::from_data([[true, true]], &device);
        padding_bias(3, Some(real));
    }
}
