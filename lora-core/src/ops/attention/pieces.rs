//! What the threads share out: the texts of each head of each row.

use super::AttentionOptions;
use super::heads::{Bias, Heads};
use super::tile::{Inputs, Problem};
use std::ops::Range;

/// A head of a text, which is a row of the batch, or a part of one.
pub(super) struct Piece {
    pub row: usize,
    pub head: usize,
    /// Its place among the heads of all rows.
    index: usize,
    /// Which of the queries are its own.
    pub queries: Range<usize>,
    /// Which of the keys.
    pub keys: Range<usize>,
    pub problem: Problem,
}

impl Piece {
    /// All pieces: by row, of it by head, and of that from its first query to its last. They hold each query, and each key,
    /// of every head once.
    ///
    /// # Panics
    /// If the texts of a packed row are not all of it.
    pub(super) fn all(options: &AttentionOptions, query: &Heads<'_>, key: &Heads<'_>) -> Vec<Self> {
        let [batch, heads, queries, _] = query.shape();
        let [_, _, keys, _] = key.shape();
        let texts = options.apart(queries, keys);
        let mut pieces = Vec::with_capacity(batch * heads * texts.len());
        for index in 0..batch * heads {
            for text in &texts {
                pieces.push(Self {
                    row: index / heads,
                    head: index % heads,
                    index,
                    queries: text.queries.clone(),
                    keys: text.keys.clone(),
                    problem: Problem::new(&text.options, text.queries.len(), text.keys.len()),
                });
            }
        }
        pieces
    }

    /// What it is made of.
    pub(super) fn inputs<'a>(
        &self,
        [query, key, value]: &[Heads<'a>; 3],
        bias: Option<&'a Bias>,
    ) -> Inputs<'a> {
        let (row, head) = (self.row, self.head);
        Inputs {
            query: query.tile(row, head, &self.queries),
            key: key.tile(row, head, &self.keys),
            value: value.tile(row, head, &self.keys),
            bias: bias.map(|bias| bias.tile(row, head)),
            index: self.index,
        }
    }

    /// With its own part of two numbers for each query.
    pub(super) fn with_statistics(
        pieces: Vec<Self>,
        mut statistics: &mut [f32],
    ) -> Vec<(Self, &mut [f32])> {
        let pair = |piece: Self| {
            let (own, others) =
                std::mem::take(&mut statistics).split_at_mut(2 * piece.queries.len());
            statistics = others;
            (piece, own)
        };
        pieces.into_iter().map(pair).collect()
    }
}
