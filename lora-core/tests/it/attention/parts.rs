//! Scores in parts of the batch and of the heads.

use super::{assert_all_close, common, run};
use burn::tensor::{DType, Tensor};
use lora_core::Dropout;
use lora_core::ops::{ScaledDotProduct, seed};

/// In float64, which no backend computes by a kernel of its own.
#[test]
fn parts_have_the_values_and_gradients_of_the_whole() {
    const QUERIES: usize = 9;
    const KEYS: usize = 11;
    let head = (QUERIES * KEYS * 8) as u64;
    for device in common::devices() {
        let device = device.autodiff();
        for heads_of_bias in [1, 3] {
            let attend = |bytes: Option<u64>| {
                let attention = ScaledDotProduct::new(0.7)
                    .causal()
                    .with_dropout(&Dropout::new(0.4));
                let attention = match bytes {
                    None => attention,
                    Some(bytes) => attention.with_max_scores_bytes(bytes),
                };
                let forward = move |[q, k, v]: [Tensor<4>; 3], bias| {
                    attention.clone().with_bias(Some(bias)).forward(q, k, v)
                };
                seed(&device, 3);
                run(forward, [QUERIES, KEYS], heads_of_bias, &device, DType::F64)
            };
            let whole = attend(None);
            assert!(whole[0].iter().any(|&value| value != 0.0));
            // Both examples apart; two heads and one; each head apart, however large.
            for bytes in [3 * head, 2 * head, 1] {
                let what = format!("{heads_of_bias} heads of bias, {bytes} bytes");
                assert_all_close(&attend(Some(bytes)), &whole, 1e-7, &what);
            }
        }
    }
}
