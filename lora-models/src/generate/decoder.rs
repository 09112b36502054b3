//! Batches of rows that are continued step by step.

use super::{CausalModel, GenerationConfig, KvCache};
use crate::ModelError;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Batch in generation: prompts of different lengths, padded on the left so that all rows end at the same position.
pub(super) struct Decoder<'a, M> {
    model: &'a M,
    device: &'a Device,
    cache: KvCache,
    /// Number of padding tokens at the start of each row.
    padding: Vec<usize>,
    /// Length of a row before any step, in tokens.
    width: usize,
    /// Tokens of each row with their padding, for a model that may read them again.
    read: Vec<Vec<i64>>,
    /// Lengths above which the rows are read again.
    limits: Vec<usize>,
    /// Number of these lengths that the cache was computed above.
    above: usize,
}

impl<'a, M: CausalModel> Decoder<'a, M> {
    /// Reads the prompts, one a row, and returns the logits after them, `[prompts, vocab]`.
    pub(super) fn start(
        model: &'a M,
        device: &'a Device,
        prompts: &[Vec<u32>],
        config: &GenerationConfig,
    ) -> (Self, Tensor<2>) {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let rooms = prompts.iter().map(|prompt| config.room(prompt.len()));
        let new = rooms.max().unwrap_or(0);
        let most = model.max_positions().saturating_sub(new).max(longest);
        let width = longest.next_multiple_of(config.pad_to_multiple_of);
        let width = width.min(most);
        let padding: Vec<usize> = prompts.iter().map(|prompt| width - prompt.len()).collect();
        let mut ids = Vec::with_capacity(prompts.len() * width);
        let mut positions = Vec::with_capacity(prompts.len() * width);
        for (prompt, &padding) in prompts.iter().zip(&padding) {
            ids.extend(std::iter::repeat_n(i64::from(config.pad_id), padding));
            ids.extend(prompt.iter().map(|&token| i64::from(token)));
            // Padding is masked; position 0 is valid in every model.
            positions.extend(std::iter::repeat_n(0, padding));
            positions.extend(0..prompt.len() as i64);
        }
        let mut decoder = Self {
            model,
            device,
            cache: KvCache::new(model.cache_layers(), width + new),
            padding,
            width,
            read: Vec::new(),
            limits: model.rereads_above(),
            above: 0,
        };
        if !decoder.limits.is_empty() && width > 0 {
            decoder.read = ids.chunks(width).map(<[i64]>::to_vec).collect();
            decoder.above = decoder.limits_below(width);
        }
        let logits = decoder.forward(ids, positions, width);
        (decoder, logits)
    }

    /// Appends a token to each row and returns the logits after it, `[rows, vocab]`.
    pub(super) fn step(&mut self, tokens: &[u32]) -> Tensor<2> {
        let ids: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let index = self.cache.len();
        if !self.limits.is_empty() {
            for (read, &token) in self.read.iter_mut().zip(&ids) {
                read.push(token);
            }
            let above = self.limits_below(index + 1);
            if above != self.above {
                self.above = above;
                return self.read_again(index + 1);
            }
        }
        let positions = self.padding.iter().map(|padding| (index - padding) as i64);
        let positions = positions.collect();
        self.forward(ids, positions, 1)
    }

    /// Returns the number of limits that the longest of the rows of this width is above.
    fn limits_below(&self, width: usize) -> usize {
        let least = self.padding.iter().min().unwrap_or(&0);
        let longest = width - least;
        let limits = self.limits.iter();
        limits.filter(|&&limit| longest > limit).count()
    }

    /// Reads all tokens of the rows of this width with an empty cache.
    fn read_again(&mut self, width: usize) -> Tensor<2> {
        self.cache.clear();
        let positions = self
            .padding
            .iter()
            .flat_map(|&padding| (0..width).map(move |index| index.saturating_sub(padding) as i64));
        let positions = positions.collect();
        self.forward(self.read.concat(), positions, width)
    }

    /// Keeps these rows in this order; a row may repeat.
    pub(super) fn select(&mut self, rows: &[usize]) {
        self.cache.select(rows, self.device);
        self.padding = rows.iter().map(|&row| self.padding[row]).collect();
        self.keep_read(rows);
    }

    /// Replaces each row by another row of the same prompt.
    pub(super) fn reorder(&mut self, rows: &[usize]) {
        self.cache.reorder(rows, self.width, self.device);
        self.keep_read(rows);
    }

    fn keep_read(&mut self, rows: &[usize]) {
        if !self.read.is_empty() {
            self.read = rows.iter().map(|&row| self.read[row].clone()).collect();
        }
    }

    fn forward(&mut self, ids: Vec<i64>, positions: Vec<i64>, seq: usize) -> Tensor<2> {
        let rows = self.padding.len();
        let ints = |values: Vec<i64>| {
            Tensor::<2, Int>::from_data(TensorData::new(values, [rows, seq]), self.device)
        };
        let mask = self.mask(self.cache.len() + seq);
        self.model
            .next_logits(ints(ids), mask, ints(positions), &mut self.cache)
    }

    /// Returns the attention mask `[rows, length]`, false for padding; `None` without padding.
    fn mask(&self, length: usize) -> Option<Tensor<2, Bool>> {
        if self.padding.iter().all(|&padding| padding == 0) {
            return None;
        }
        let mut mask = Vec::with_capacity(self.padding.len() * length);
        for &padding in &self.padding {
            mask.extend((0..length).map(|index| index >= padding));
        }
        let data = TensorData::new(mask, [self.padding.len(), length]);
        Some(Tensor::from_data(data, self.device))
    }
}

/// Copies logits `[rows, vocab]` to the host, row after row.
pub(super) fn rows_on_host(logits: Tensor<2>) -> Result<Vec<Vec<f32>>, ModelError> {
    let [_, vocab] = logits.dims();
    let values = logits.into_data().convert::<f32>();
    let values = values
        .as_slice::<f32>()
        .map_err(|error| ModelError::Generation {
            message: format!("the logits cannot be read from the device: {error:?}"),
        })?;
    Ok(values.chunks_exact(vocab).map(<[f32]>::to_vec).collect())
}
