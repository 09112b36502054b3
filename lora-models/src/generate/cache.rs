//! Cache of keys and values.

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Cache of keys and values of past tokens in each layer, so that a step computes its own token alone.
///
/// The capacity is allocated at once: a step writes its tokens in place, and reading is a view. Models call
/// [`append`](Self::append) in each layer and [`advance`](Self::advance) once at the end of a forward pass.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Keys and values of each layer, `[rows, heads, capacity, d_head]`.
    layers: Vec<Option<[Tensor<4>; 2]>>,
    /// Row of the first batch that each row continues; `None` before any selection.
    sources: Option<Vec<usize>>,
    /// Number of tokens that every layer holds.
    len: usize,
    capacity: usize,
}

impl KvCache {
    /// Creates an empty cache of `layers` layers with room for `capacity` tokens in each row. More tokens make it grow, by
    /// a copy.
    pub fn new(layers: usize, capacity: usize) -> Self {
        Self {
            layers: vec![None; layers],
            sources: None,
            len: 0,
            capacity,
        }
    }

    /// Returns the number of tokens in each row.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if the cache has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Returns the row of the first batch that a row continues, after selections and reorderings.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn source(&self, row: usize) -> usize {
        self.sources.as_ref().map_or(row, |sources| sources[row])
    }

    /// Writes keys and values of new tokens in a layer, and returns those of all tokens.
    ///
    /// # Shapes
    /// - `keys`, `values`: `[rows, heads, seq, d_head]`
    /// - returns twice `[rows, heads, len + seq, d_head]`
    ///
    /// # Panics
    /// If there is no such layer, or the rows, heads or widths are not those of the tokens before.
    pub fn append(
        &mut self,
        layer: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let [_, _, seq, _] = keys.dims();
        let needed = self.len + seq;
        if needed > self.capacity {
            self.grow(needed.max(2 * self.capacity));
        }
        let room = || [&keys, &values].map(|like| empty(like, self.capacity));
        let [all_keys, all_values] = self.layers[layer].take().unwrap_or_else(room);
        let stored = [
            write(all_keys, keys, self.len),
            write(all_values, values, self.len),
        ];
        let seen = stored.clone().map(|all| all.narrow(2, 0, needed));
        self.layers[layer] = Some(stored);
        seen.into()
    }

    /// Adds `seq` tokens to the length, when every layer holds them.
    pub fn advance(&mut self, seq: usize) {
        self.len += seq;
    }

    /// Forgets all tokens; the rows continue those that they continued.
    pub(super) fn clear(&mut self) {
        self.layers.fill(None);
        self.len = 0;
    }

    /// Keeps these rows in this order; a row may repeat or be missing.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn select(&mut self, rows: &[usize], device: &Device) {
        self.sources = Some(rows.iter().map(|&row| self.source(row)).collect());
        let indices = indices(rows, device);
        let (len, capacity) = (self.len, self.capacity);
        self.replace(|all| {
            let chosen = all.narrow(2, 0, len).select(0, indices.clone());
            write(empty(&chosen, capacity), chosen, 0)
        });
    }

    /// Reorders the rows' tokens from position `from` on; earlier tokens stay.
    ///
    /// Beams of one prompt share its tokens, so that only generated tokens move.
    ///
    /// # Panics
    /// If `rows` has another length than there are rows, or there is no such row.
    pub fn reorder(&mut self, rows: &[usize], from: usize, device: &Device) {
        let in_place = rows.iter().enumerate().all(|(at, &row)| at == row);
        if in_place || from >= self.len {
            return;
        }
        // Rows of different prompts are never exchanged: each would keep the other's prompt.
        let indices = indices(rows, device);
        let len = self.len;
        self.replace(|all| {
            let moved = all
                .clone()
                .narrow(2, from, len - from)
                .select(0, indices.clone());
            write(all, moved, from)
        });
    }

    fn grow(&mut self, capacity: usize) {
        self.capacity = capacity;
        let len = self.len;
        self.replace(|all| write(empty(&all, capacity), all.narrow(2, 0, len), 0));
    }

    fn replace(&mut self, mut change: impl FnMut(Tensor<4>) -> Tensor<4>) {
        for slot in &mut self.layers {
            *slot = slot.take().map(|both| both.map(&mut change));
        }
    }
}

fn indices(rows: &[usize], device: &Device) -> Tensor<1, Int> {
    let shape = [rows.len()];
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    Tensor::from_data(TensorData::new(rows, shape), device)
}

/// Returns zeros `[rows, heads, capacity, d_head]` of the type and device of `like` `[rows, heads, _, d_head]`.
fn empty(like: &Tensor<4>, capacity: usize) -> Tensor<4> {
    let [rows, heads, _, d_head] = like.dims();
    Tensor::zeros(
        [rows, heads, capacity, d_head],
        (&like.device(), like.dtype()),
    )
}

/// Writes `new` `[rows, heads, seq, d_head]` at position `at` of `all`.
fn write(all: Tensor<4>, new: Tensor<4>, at: usize) -> Tensor<4> {
    let [rows, heads, seq, d_head] = new.dims();
    all.slice_assign([0..rows, 0..heads, at..at + seq, 0..d_head], new)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a tensor `[rows, 1, 1, 1]` of these values.
    fn column(values: &[f32]) -> Tensor<4> {
        let data = TensorData::new(values.to_vec(), [values.len(), 1, 1, 1]);
        Tensor::from_data(data, &Device::flex())
    }

    fn push(cache: &mut KvCache, values: &[f32]) -> Vec<f32> {
        let (keys, seen) = cache.append(0, column(values), column(values) * 10.0);
        cache.advance(1);
        assert_eq!((keys * 10.0).into_data(), seen.clone().into_data());
        seen.into_data().iter::<f32>().collect()
    }

    #[test]
    fn tokens_come_back_in_order_past_the_capacity() {
        let mut cache = KvCache::new(1, 2);
        assert!(cache.is_empty());
        push(&mut cache, &[1.0, 2.0]);
        push(&mut cache, &[3.0, 4.0]);
        let seen = push(&mut cache, &[5.0, 6.0]);
        assert_eq!(seen, [10.0, 30.0, 50.0, 20.0, 40.0, 60.0]);
        assert_eq!((cache.len(), cache.layers()), (3, 1));
    }

    #[test]
    fn rows_are_kept_repeated_and_dropped() {
        let device = Device::flex();
        let mut cache = KvCache::new(1, 4);
        push(&mut cache, &[1.0, 2.0, 3.0]);
        cache.select(&[2, 2, 0, 1], &device);
        assert_eq!([0, 1, 2, 3].map(|row| cache.source(row)), [2, 2, 0, 1]);
        let seen = push(&mut cache, &[4.0, 5.0, 6.0, 7.0]);
        assert_eq!(seen, [30.0, 40.0, 30.0, 50.0, 10.0, 60.0, 20.0, 70.0]);
        cache.select(&[3], &device);
        assert_eq!(cache.source(0), 1);
        assert_eq!(push(&mut cache, &[8.0]), [20.0, 70.0, 80.0]);
    }

    #[test]
    fn a_reorder_leaves_the_prompt_where_it_is() {
        let device = Device::flex();
        let mut cache = KvCache::new(1, 4);
        push(&mut cache, &[1.0, 2.0]);
        push(&mut cache, &[3.0, 4.0]);
        cache.reorder(&[0, 1], 1, &device);
        cache.reorder(&[1, 1], 1, &device);
        let seen = push(&mut cache, &[5.0, 6.0]);
        assert_eq!(seen, [10.0, 40.0, 50.0, 20.0, 40.0, 60.0]);
    }
}
