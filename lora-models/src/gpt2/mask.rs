//! What a token may look at: itself and what is before it, and no padding.

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// Added to the score of a hidden position.
///
/// The exponential of it against any real score is exactly zero. It is finite, so that a row of
/// which everything is hidden, as that of a padding token on the left, gives some average and not
/// NaN; and twice it is still far from f32's limit, so the two masks can be added.
const HIDDEN: f32 = -1e9;

/// What is added to the attention scores, made once for all layers; `None` where nothing is hidden.
///
/// # Shapes
/// - `attention_mask`: `[batch, past + seq]`, true for a token, false for padding
/// - returns `[batch or 1, 1, seq or 1, past + seq]`
///
/// # Panics
/// If the mask has another length.
pub(super) fn additive_mask(
    seq: usize,
    past: usize,
    attention_mask: Option<Tensor<2, Bool>>,
    device: &Device,
) -> Option<Tensor<4>> {
    let keys = past + seq;
    let padding = attention_mask.map(|mask| {
        let [_, length] = mask.dims();
        assert_eq!(
            length, keys,
            "the attention mask covers {length} tokens, but there are {past} in the cache and {seq} new"
        );
        // [batch, keys] -> [batch, 1, 1, keys]
        let hidden = mask.bool_not().float() * HIDDEN;
        hidden.unsqueeze_dims::<4>(&[1, 2])
    });
    // One new token sees all that is before it.
    let causal = (seq > 1).then(|| causal_mask(seq, past, device));
    match (causal, padding) {
        (Some(causal), Some(padding)) => Some(causal + padding),
        (causal, padding) => causal.or(padding),
    }
}

/// `[1, 1, seq, past + seq]`, [`HIDDEN`] above the diagonal that ends in the last corner.
fn causal_mask(seq: usize, past: usize, device: &Device) -> Tensor<4> {
    let keys = past + seq;
    let mut values = vec![0.0f32; seq * keys];
    for (query, row) in values.chunks_exact_mut(keys).enumerate() {
        row[past + query + 1..].fill(HIDDEN);
    }
    Tensor::from_data(TensorData::new(values, [1, 1, seq, keys]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(mask: Option<Tensor<4>>) -> Vec<f32> {
        let data = mask.unwrap().into_data();
        data.iter::<f32>().map(|value| value / HIDDEN).collect()
    }

    #[test]
    fn a_token_sees_itself_and_the_past() {
        let device = Device::flex();
        let mask = additive_mask(2, 1, None, &device);
        assert_eq!(values(mask), [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
        assert!(additive_mask(1, 5, None, &device).is_none());
    }

    #[test]
    fn padding_is_hidden_from_every_token_of_its_row() {
        let device = Device::flex();
        let real = Tensor::<2, Bool>::from_data([[false, true], [true, true]], &device);
        let mask = additive_mask(2, 0, Some(real.clone()), &device);
        assert_eq!(mask.as_ref().unwrap().dims(), [2, 1, 2, 2]);
        assert_eq!(values(mask), [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let step = additive_mask(1, 1, Some(real), &device);
        assert_eq!(values(step), [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    #[should_panic(expected = "covers 2 tokens")]
    fn a_mask_of_another_length_panics() {
        let device = Device::flex();
        let real = Tensor::<2, Bool>::from_data([[true, true]], &device);
        additive_mask(1, 2, Some(real), &device);
    }
}
