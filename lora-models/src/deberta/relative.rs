//! Embeddings of the distances within a sequence, and scores against them.

use super::Distances;
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_core::{LayerNorm, LoraEmbedding};

/// Inputs shared by all layers: padding mask and distances.
#[derive(Clone, Debug)]
pub struct DebertaContext {
    /// Bias on the scores that masks padding, `[batch, 1, 1, seq]`.
    pub(super) padding_mask: Tensor<4>,
    /// Distances, if scores depend on them.
    pub(super) relative: Option<RelativePositions>,
}

/// Embeddings of the distances in a sequence, and the orders in which the terms read them.
///
/// The scores of a token against all `2 · seq - 1` distances are computed side by side, and `skew` then moves each to
/// its pair of tokens. Gathering the score of each pair instead would take an index as large as the scores and, in the
/// backward pass, a scattered sum into them.
#[derive(Clone, Debug)]
pub struct RelativePositions {
    /// Embeddings of the distances within reach, `[1, rows, hidden_size]`. All examples share them, unless each has an
    /// adapter of its own: then the first axis is the batch.
    pub(super) embeddings: Tensor<3>,
    /// Order of the embeddings from the key farthest before a query to the one farthest after it, `[2 · seq]`.
    pub(super) key_order: Tensor<1, Int>,
    /// Order of the embeddings from the query farthest before a key to the one farthest after it, `[2 · seq]`.
    pub(super) query_order: Tensor<1, Int>,
}

impl RelativePositions {
    /// Looks up the embeddings for sequences of `seq` tokens.
    pub(super) fn new(
        embedding: &LoraEmbedding,
        norm: Option<&LayerNorm>,
        distances: &Distances,
        seq: usize,
        device: &Device,
    ) -> Self {
        let reach = distances.reach(seq);
        let rows = Tensor::<1, Int>::arange(reach.start as i64..reach.end as i64, device);
        let embeddings = embedding.forward(rows.unsqueeze()); // [1, rows, hidden_size]
        let ints = |order: Vec<i32>| {
            let count = order.len();
            Tensor::from_data(TensorData::new(order, [count]), device)
        };
        let (key_order, query_order) = orders(distances, seq);
        Self {
            embeddings: match norm {
                Some(norm) => norm.forward(embeddings),
                None => embeddings,
            },
            key_order: ints(key_order),
            query_order: ints(query_order),
        }
    }
}

/// Returns the rows within reach, for keys and for queries, from far before a token to far after it. The last row of
/// each is superfluous; [`skew`] needs it.
fn orders(distances: &Distances, seq: usize) -> (Vec<i32>, Vec<i32>) {
    let first = distances.reach(seq).start;
    let farthest = seq as i64 - 1;
    let offsets = (-farthest..=farthest).chain([farthest]);
    let row = |distance: i64| (distances.row(distance) - first) as i32;
    let key_order = offsets.clone().map(|offset| row(-offset)).collect();
    (key_order, offsets.map(row).collect())
}

/// Moves the score of a token against an offset to the pair of tokens at that distance: row `i` of the result begins
/// at column `seq - 1 - i` of the input's.
///
/// Each row begins one column before the one above it. If the rows are concatenated and divided into rows that are one
/// element shorter, their values stand below each other.
///
/// # Shapes
/// - `scores`: `[batch, heads, seq, 2 · seq]`, from offset `1 - seq` on; the last column is not used
/// - returns `[batch, heads, seq, seq]`
pub(super) fn skew(scores: Tensor<4>) -> Tensor<4> {
    let [batch, heads, seq, columns] = scores.dims();
    let shorter = columns - 1;
    let flat = scores.reshape([batch, heads, seq * columns]);
    let flat = flat.narrow(2, seq - 1, seq * shorter);
    let cut = flat.reshape([batch, heads, seq, shorter]);
    cut.narrow(3, 0, seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{Disentangled, PositionTerms};

    fn distances(max_distance: usize, buckets: Option<usize>) -> Distances {
        Distances::new(&Disentangled {
            relative: true,
            terms: PositionTerms::default(),
            max_distance,
            buckets,
            share_att_key: false,
            norm_embeddings: false,
            conv: None,
        })
    }

    /// Returns scores that hold the row of their embedding.
    fn skewed(order: &[i32], seq: usize) -> Vec<i64> {
        let row: Vec<f32> = order.iter().map(|&row| row as f32).collect();
        let scores = Tensor::<1>::from_floats(row.as_slice(), &Device::flex());
        let scores = scores
            .reshape([1, 1, 1, 2 * seq])
            .expand([2, 3, seq, 2 * seq]);
        let skewed = skew(scores);
        assert_eq!(skewed.dims(), [2, 3, seq, seq]);
        let values = skewed.into_data().iter::<i64>().collect::<Vec<_>>();
        let (one, others) = values.split_at(seq * seq);
        assert!(others.chunks_exact(seq * seq).all(|other| other == one));
        one.to_vec()
    }

    #[test]
    fn every_pair_gets_the_row_of_its_distance() {
        for (seq, distances) in [
            (1, distances(8, None)),
            (2, distances(8, None)),
            (7, distances(8, None)),
            (7, distances(3, None)),
            (40, distances(30, Some(8))),
        ] {
            let first = distances.reach(seq).start;
            let (key_order, query_order) = orders(&distances, seq);
            let content_to_position = skewed(&key_order, seq);
            let position_to_content = skewed(&query_order, seq);
            for query in 0..seq {
                for key in 0..seq {
                    let row = distances.row(query as i64 - key as i64) - first;
                    assert_eq!(content_to_position[query * seq + key], row as i64);
                    assert_eq!(position_to_content[key * seq + query], row as i64);
                }
            }
        }
    }
}
