//! Units of work for the threads: one head of one text.

use super::AttentionOptions;
use super::groups::heads_per_key;
use super::heads::{Bias, Heads};
use super::tile::{HeadAttention, Inputs};
use std::ops::Range;

/// One head of one text, which is a row of the batch or a segment of a row.
pub(super) struct WorkItem {
    pub row: usize,
    pub head: usize,
    /// Index of its head of keys and values.
    pub key_head: usize,
    /// Index of the head among the heads of all rows.
    index: usize,
    /// Range of its queries.
    pub queries: Range<usize>,
    /// Range of its keys.
    pub keys: Range<usize>,
    pub attention: HeadAttention,
}

impl WorkItem {
    /// Lists all items, ordered by row, head and query. Together they hold each query and each key of every head once.
    ///
    /// # Panics
    /// Panics if the texts of a packed row do not fill it.
    pub(super) fn all(options: &AttentionOptions, query: &Heads<'_>, key: &Heads<'_>) -> Vec<Self> {
        let [batch, heads, queries, _] = query.shape();
        let [_, key_heads, keys, _] = key.shape();
        let sharing = heads_per_key(heads, key_heads);
        let texts = options.by_segment(queries, keys);
        let mut items = Vec::with_capacity(batch * heads * texts.len());
        for index in 0..batch * heads {
            for text in &texts {
                items.push(Self {
                    row: index / heads,
                    head: index % heads,
                    key_head: index % heads / sharing,
                    index,
                    queries: text.queries.clone(),
                    keys: text.keys.clone(),
                    attention: HeadAttention::new(
                        &text.options,
                        text.queries.len(),
                        text.keys.len(),
                    ),
                });
            }
        }
        items
    }

    /// Lists all items, those together that share keys.
    ///
    /// # Panics
    /// As [`all`](Self::all).
    pub(super) fn by_key_head(
        options: &AttentionOptions,
        query: &Heads<'_>,
        key: &Heads<'_>,
    ) -> Vec<Vec<Self>> {
        let mut items = Self::all(options, query, key);
        items.sort_by_key(|item| (item.row, item.key_head, item.keys.start, item.head));
        let mut groups: Vec<Vec<Self>> = Vec::new();
        for item in items {
            match groups.last_mut() {
                Some(group) if item.shares_keys_with(&group[0]) => group.push(item),
                _ => groups.push(vec![item]),
            }
        }
        groups
    }

    fn shares_keys_with(&self, other: &Self) -> bool {
        (self.row, self.key_head) == (other.row, other.key_head) && self.keys == other.keys
    }

    /// Returns the queries, keys, values and bias of this item.
    pub(super) fn inputs<'a>(
        &self,
        [query, key, value]: &[Heads<'a>; 3],
        bias: Option<&'a Bias>,
    ) -> Inputs<'a> {
        let (row, head) = (self.row, self.head);
        Inputs {
            query: query.tile(row, head, &self.queries),
            key: key.tile(row, self.key_head, &self.keys),
            value: value.tile(row, self.key_head, &self.keys),
            bias: bias.map(|bias| bias.tile(row, head, self.queries.len())),
            index: self.index,
        }
    }

    /// Pairs each item with its own slice of `statistics`, two values per query.
    pub(super) fn with_statistics(
        items: Vec<Self>,
        mut statistics: &mut [f32],
    ) -> Vec<(Self, &mut [f32])> {
        let pair = |item: Self| {
            let (own, rest) = std::mem::take(&mut statistics).split_at_mut(2 * item.queries.len());
            statistics = rest;
            (item, own)
        };
        items.into_iter().map(pair).collect()
    }
}
