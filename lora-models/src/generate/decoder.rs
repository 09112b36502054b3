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
        };
        let logits = decoder.forward(ids, positions, width);
        (decoder, logits)
    }

    /// Appends a token to each row and returns the logits after it, `[rows, vocab]`.
    pub(super) fn step(&mut self, tokens: &[u32]) -> Tensor<2> {
        let ids = tokens.iter().map(|&token| i64::from(token)).collect();
        let index = self.cache.len();
        let positions = self.padding.iter().map(|padding| (index - padding) as i64);
        let positions = positions.collect();
        self.forward(ids, positions, 1)
    }

    /// Keeps these rows in this order; a row may repeat.
    pub(super) fn select(&mut self, rows: &[usize]) {
        self.cache.select(rows, self.device);
        self.padding = rows.iter().map(|&row| self.padding[row]).collect();
    }

    /// Replaces each row by another row of the same prompt.
    pub(super) fn reorder(&mut self, rows: &[usize]) {
        self.cache.reorder(rows, self.width, self.device);
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
