//! Forward pass of a batch in which each example has an adapter of its own.
//!
//! The factors of all adapters that occur are concatenated to `A` `[d_in, R]` and `B` `[R, d_out]`, with `R` the sum of
//! their ranks. Between the two products a mask keeps, for each row, the columns of its own adapter, times that adapter's
//! scale: `y = x W + ((x A) ⊙ mask) B`. These are two products for the whole batch, whatever the ranks.

use super::base_weight::BaseWeight;
use super::concatenated::{Cache, Concatenated};
use super::entry::AdapterEntry;
use super::scope::{BatchRows, is_scoped};
use super::set::AdapterSet;
use crate::ops::linear;
use burn::module::Param;
use burn::tensor::module::embedding;
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::sync::{Arc, Mutex, PoisonError};

/// The entries of a batch's adapters on one parameter, in the order of [`BatchRows::adapters`].
struct Entries<'a> {
    set: Option<&'a AdapterSet>,
    entries: Vec<Option<&'a AdapterEntry>>,
}

impl<'a> Entries<'a> {
    fn new(set: Option<&'a AdapterSet>, rows: &BatchRows) -> Self {
        let entry = |key: &usize| set?.entry(*key);
        Self {
            set,
            entries: rows.adapters.iter().map(entry).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.iter().all(Option::is_none)
    }

    fn any(&self, condition: impl Fn(&AdapterEntry) -> bool) -> bool {
        self.entries.iter().flatten().any(|entry| condition(entry))
    }

    /// Returns the entry of an adapter with a fully trained value.
    fn full(&self, adapter: Option<usize>) -> Option<&'a AdapterEntry> {
        self.entries[adapter?].filter(|entry| entry.full.is_some())
    }
}

/// A layer in a batch in which each example has an adapter of its own.
pub(crate) struct PerExample<'a> {
    bias: Option<&'a Param<Tensor<1>>>,
    on_weight: Entries<'a>,
    on_bias: Entries<'a>,
    rows: Arc<BatchRows>,
}

impl<'a> PerExample<'a> {
    /// Returns `None` outside of such a batch, and for a layer that its adapters do not change.
    pub fn find(weight: &'a Param<Tensor<2>>, bias: Option<&'a Param<Tensor<1>>>) -> Option<Self> {
        if !is_scoped() {
            return None;
        }
        let (weight_set, bias_set) = (AdapterSet::on(weight), bias.and_then(AdapterSet::on));
        let rows = weight_set.or(bias_set)?.rows()?;
        let on_weight = Entries::new(weight_set, &rows);
        let on_bias = Entries::new(bias_set, &rows);
        if on_weight.is_empty() && on_bias.is_empty() {
            return None;
        }
        Some(Self {
            bias,
            on_weight,
            on_bias,
            rows,
        })
    }

    /// Applies a linear layer.
    ///
    /// # Shapes
    /// - `x`: `[batch or 1, ..., d_in]`, or `[batch · n, d_in]`
    /// - returns `[batch, ..., d_out]`, or `[batch · n, d_out]`
    pub fn linear<const D: usize>(&self, x: Tensor<D>, w: &BaseWeight<'_>) -> Tensor<D> {
        let rows = &self.rows;
        let mut shape = x.dims();
        let x = by_example(x, rows.indices.len());
        let mut y = if self.on_weight.any(|entry| entry.full.is_some()) {
            linear_by_adapter(x.clone(), &w.dense(), &self.on_weight, rows)
        } else {
            w.linear(x.clone(), None)
        };
        if self.on_weight.any(|entry| entry.factors.is_some()) {
            let adapters = concatenated(w, &self.on_weight, rows);
            if let Some([a, b]) = &adapters.low_rank {
                let dtype = y.dtype();
                let low = linear(x, a.clone(), None).cast(dtype); // [batch, n, R]
                let low = low * mask(&adapters, rows, &y);
                y = y + linear(low, b.clone(), None).cast(dtype);
            }
            if let Some(gains) = &adapters.gains {
                let dtype = y.dtype();
                y = y * row_of_each(gains, rows).cast(dtype);
            }
        }
        match self.bias {
            None => {}
            Some(bias) => {
                let bias = if self.on_bias.is_empty() {
                    bias.val().unsqueeze()
                } else {
                    row_of_each(&bias_table(bias, &self.on_bias, rows), rows)
                };
                let dtype = y.dtype();
                y = y + bias.cast(dtype);
            }
        }
        if D > 2 {
            shape[0] = y.dims()[0];
        }
        shape[D - 1] = w.d_out();
        y.reshape(shape)
    }

    /// Looks up rows of an embedding.
    ///
    /// # Shapes
    /// - `ids`: `[batch or 1, seq]`
    /// - returns `[batch, seq, dimension]`
    pub fn embedding(&self, ids: Tensor<2, Int>, w: &BaseWeight<'_>) -> Tensor<3> {
        if !self.on_weight.any(|entry| entry.factors.is_some()) {
            // A fully trained embedding was refused when adapters were assigned.
            return w.embedding(ids);
        }
        let rows = &self.rows;
        assert_batch(ids.dims()[0], rows.indices.len());
        let adapters = concatenated(w, &self.on_weight, rows);
        let mut y = w.embedding(ids.clone());
        if let Some([a, b]) = &adapters.low_rank {
            let dtype = y.dtype();
            let low = embedding(a.clone(), ids).cast(dtype) * mask(&adapters, rows, &y);
            y = y + linear(low, b.clone(), None).cast(dtype);
        }
        match &adapters.gains {
            None => y,
            Some(gains) => {
                let dtype = y.dtype();
                y * row_of_each(gains, rows).cast(dtype)
            }
        }
    }
}

fn assert_batch(found: usize, batch: usize) {
    assert!(
        found == batch || found == 1,
        "the first axis is {found}, but {batch} examples have adapters of their own: expected {batch}, or 1 for an \
         input that all of them share"
    );
}

/// Reshapes the input to `[batch or 1, n, d_in]`.
fn by_example<const D: usize>(x: Tensor<D>, batch: usize) -> Tensor<3> {
    let dims = x.dims();
    let d_in = dims[D - 1];
    if D > 2 {
        assert_batch(dims[0], batch);
        let n = dims[1..D - 1].iter().product();
        return x.reshape([dims[0], n, d_in]);
    }
    let rows = if D == 2 { dims[0] } else { 1 };
    assert!(
        rows.is_multiple_of(batch),
        "{rows} rows cannot be divided among {batch} examples with adapters of their own; select rows with `in_rows`"
    );
    x.reshape([batch, rows / batch, d_in])
}

/// Selects the table's row for each example's adapter, the last row for the base: `[batch, 1, columns]`.
fn row_of_each(table: &Tensor<2>, rows: &BatchRows) -> Tensor<3> {
    let base = rows.adapters.len();
    let indices = rows.indices.iter().map(|index| index.unwrap_or(base));
    let indices = int_tensor(indices, &table.device());
    table.clone().select(0, indices).unsqueeze_dim(1)
}

fn int_tensor(values: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.map(|value| value as i64).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// Builds the mask with each example's scale at its own adapter's columns and 0 elsewhere, `[batch, 1, R]`, with device and
/// type of `like`.
fn mask(adapters: &Concatenated, rows: &BatchRows, like: &Tensor<3>) -> Tensor<3> {
    let ranks =
        |count: usize| -> usize { adapters.columns[..count].iter().map(|(rank, _)| rank).sum() };
    let total = ranks(adapters.columns.len());
    let mut values = vec![0.0f32; rows.indices.len() * total];
    for (row, adapter) in values.chunks_exact_mut(total).zip(&rows.indices) {
        let Some(adapter) = *adapter else { continue };
        let start = ranks(adapter);
        let (rank, scale) = adapters.columns[adapter];
        row[start..start + rank].fill(scale as f32);
    }
    let data = TensorData::new(values, [rows.indices.len(), 1, total]);
    Tensor::from_data(data, (&like.device(), like.dtype()))
}

/// Returns the concatenated adapters, from the cache of the batch if they are in it.
fn concatenated(w: &BaseWeight<'_>, entries: &Entries<'_>, rows: &BatchRows) -> Concatenated {
    let Some(set) = entries.set else {
        return concatenate(w, entries);
    };
    let cached = lock(&rows.cache).weights.get(&set.id).cloned();
    // A clone of the module may be on another device.
    let fits = |adapters: &Concatenated| {
        let mut tensors = adapters.low_rank.iter().flatten().chain(&adapters.gains);
        tensors.all(|tensor| tensor.device() == w.device() && tensor.dtype() == w.dtype())
    };
    cached.filter(fits).unwrap_or_else(|| {
        let adapters = concatenate(w, entries);
        lock(&rows.cache).weights.insert(set.id, adapters.clone());
        adapters
    })
}

fn concatenate(w: &BaseWeight<'_>, entries: &Entries<'_>) -> Concatenated {
    let (mut all_a, mut all_b) = (Vec::new(), Vec::new());
    let mut columns = Vec::new();
    let mut gains = Vec::new();
    let mut has_gain = false;
    let ones = || Tensor::<2>::ones([1, w.d_out()], (&w.device(), w.dtype()));
    for entry in &entries.entries {
        let factors = entry.and_then(|entry| entry.factors.as_ref());
        let Some(adapter) = factors.filter(|adapter| adapter.is_enabled()) else {
            columns.push((0, 0.0));
            gains.push(ones());
            continue;
        };
        let (a, b) = adapter.factors();
        columns.push((a.dims()[1], adapter.scale()));
        gains.push(match adapter.gain(|| w.dense(), &a, &b) {
            None => ones(),
            Some(gain) => {
                has_gain = true;
                gain.unsqueeze()
            }
        });
        all_a.push(a);
        all_b.push(b);
    }
    gains.push(ones());
    Concatenated {
        low_rank: (!all_a.is_empty()).then(|| [Tensor::cat(all_a, 1), Tensor::cat(all_b, 0)]),
        columns,
        gains: has_gain.then(|| Tensor::cat(gains, 0)),
    }
}

/// Returns the bias with each adapter, and the base's bias as the last row: `[adapters + 1, d_out]`.
fn bias_table(bias: &Param<Tensor<1>>, entries: &Entries<'_>, rows: &BatchRows) -> Tensor<2> {
    let base = bias.base();
    let id = entries.set.map(|set| set.id);
    let cached = id.and_then(|id| lock(&rows.cache).biases.get(&id).cloned());
    if let Some(table) = cached.filter(|table| table.device() == base.device()) {
        return table;
    }
    let apply = |entry: &Option<&AdapterEntry>| match entry {
        None => base.clone(),
        Some(entry) => entry.apply(base.clone()),
    };
    let biases = entries.entries.iter().map(apply).chain([base.clone()]);
    let table = Tensor::stack::<2>(biases.collect(), 0);
    if let Some(id) = id {
        lock(&rows.cache).biases.insert(id, table.clone());
    }
    table
}

/// Returns `x W` where some adapters have a fully trained weight: one product for each weight that occurs, with the rows of
/// its examples, so that no weight is copied for an example.
fn linear_by_adapter(
    x: Tensor<3>,
    w: &Tensor<2>,
    entries: &Entries<'_>,
    rows: &BatchRows,
) -> Tensor<3> {
    let [shared, n, d_in] = x.dims();
    let batch = rows.indices.len();
    let x = if shared == batch {
        x
    } else {
        x.expand([batch, n, d_in])
    };
    let device = x.device();
    let indices = |examples: &[usize]| int_tensor(examples.iter().copied(), &device);
    // The examples of each weight; the last group is that of the base's weight.
    let mut groups = vec![Vec::new(); rows.adapters.len() + 1];
    for (example, adapter) in rows.indices.iter().enumerate() {
        let own = adapter.filter(|_| entries.full(*adapter).is_some());
        groups[own.unwrap_or(rows.adapters.len())].push(example);
    }
    let mut outputs = Vec::new();
    let mut order = Vec::with_capacity(batch);
    for (adapter, examples) in groups.iter().enumerate().filter(|(_, e)| !e.is_empty()) {
        let own = (adapter < rows.adapters.len()).then_some(adapter);
        let w = match entries.full(own) {
            None => w.clone(),
            Some(entry) => entry.without_update(w.clone()),
        };
        outputs.push(linear(x.clone().select(0, indices(examples)), w, None));
        order.extend_from_slice(examples);
    }
    let mut back = vec![0; batch];
    for (place, &example) in order.iter().enumerate() {
        back[example] = place;
    }
    Tensor::cat(outputs, 0).select(0, indices(&back))
}

/// Locks the cache. It is consistent at any time, also after a panic.
fn lock(cache: &Mutex<Cache>) -> std::sync::MutexGuard<'_, Cache> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
