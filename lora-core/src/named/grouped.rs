//! The arithmetic of a batch in which each example has an adapter of its own.
//!
//! The factors of all adapters that occur stand side by side, `A` `[d_in, R]` and `B` `[R, d_out]` with `R` the sum of
//! their ranks, and between the two products a mask keeps of each row its own adapter's columns, times that adapter's
//! scale: `y = x W + ((x A) ⊙ mask) B`. That is two products for the whole batch, whatever the ranks are.

use super::acting::{Rows, is_scoped};
use super::change::Change;
use super::set::{AdapterSet, packed_weight};
use super::side_by_side::{Factors, Groups};
use crate::base_weight::BaseWeight;
use burn::module::Param;
use burn::tensor::module::{embedding as look_up, linear as dense};
use burn::tensor::{Int, Tensor, TensorData};
use std::sync::{Mutex, PoisonError};

/// What the adapters of a batch do to one parameter, in the order of [`Rows::adapters`].
struct Changes<'a> {
    set: Option<&'a AdapterSet>,
    of: Vec<Option<&'a Change>>,
}

impl<'a> Changes<'a> {
    fn new(set: Option<&'a AdapterSet>, rows: &Rows) -> Self {
        let change = |key: &usize| set?.change(*key);
        Self {
            set,
            of: rows.adapters.iter().map(change).collect(),
        }
    }

    fn any(&self, which: impl Fn(&Change) -> bool) -> bool {
        self.of.iter().flatten().any(|change| which(change))
    }

    fn whole(&self, adapter: Option<usize>) -> Option<&'a Change> {
        self.of[adapter?].filter(|change| change.whole.is_some())
    }
}

/// A linear layer in such a batch; `None` where there is none, or the layer is the same for all its examples.
///
/// # Shapes
/// - `x`: `[batch or 1, ..., d_in]`, or `[batch · n, d_in]`
/// - returns `[batch, ..., d_out]`, or `[batch · n, d_out]`
pub(crate) fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Param<Tensor<2>>,
    bias: Option<&Param<Tensor<1>>>,
) -> Option<Tensor<D>> {
    if !is_scoped() {
        return None;
    }
    let (on_weight, on_bias) = (AdapterSet::of(weight), bias.and_then(AdapterSet::of));
    let rows = on_weight.or(on_bias)?.rows()?;
    let (weights, biases) = (Changes::new(on_weight, &rows), Changes::new(on_bias, &rows));
    if !weights.any(|_| true) && !biases.any(|_| true) {
        return None;
    }
    let w = BaseWeight::of(weight, packed_weight(weight));
    let d_out = w.d_out();
    let batch = rows.of.len();
    let mut shape = x.dims();
    let x = by_example(x, batch);
    let mut y = match weights.any(|change| change.whole.is_some()) {
        true => dense_by_adapter(x.clone(), &w.dense(), &weights, &rows),
        false => w.linear(x.clone(), None),
    };
    if weights.any(|change| change.factors.is_some()) {
        let factors = factors(&w, &weights, &rows);
        if let Some([a, b]) = &factors.low_rank {
            let low = dense(x, a.clone(), None) * mask(&factors, &rows, &y); // [batch, n, R]
            y = y + dense(low, b.clone(), None);
        }
        if let Some(gains) = &factors.gains {
            y = y * each(gains, &rows);
        }
    }
    match bias {
        None => {}
        Some(bias) if biases.any(|_| true) => y = y + each(&bias_rows(bias, &biases, &rows), &rows),
        Some(bias) => y = y + bias.val().unsqueeze(),
    }
    if D > 2 {
        shape[0] = y.dims()[0];
    }
    shape[D - 1] = d_out;
    Some(y.reshape(shape))
}

/// An embedding in such a batch.
///
/// # Shapes
/// - `ids`: `[batch or 1, seq]`
/// - returns `[batch, seq, dimension]`
pub(crate) fn embedding(ids: &Tensor<2, Int>, weight: &Param<Tensor<2>>) -> Option<Tensor<3>> {
    if !is_scoped() {
        return None;
    }
    let set = AdapterSet::of(weight)?;
    let rows = set.rows()?;
    let changes = Changes::new(Some(set), &rows);
    if !changes.any(|change| change.factors.is_some()) {
        return None; // One that trained whole was refused.
    }
    assert_batch(ids.dims()[0], rows.of.len());
    let w = weight.base();
    let factors = factors(&BaseWeight::Dense(w.clone()), &changes, &rows);
    let mut y = look_up(w, ids.clone());
    if let Some([a, b]) = &factors.low_rank {
        let low = look_up(a.clone(), ids.clone()) * mask(&factors, &rows, &y);
        y = y + dense(low, b.clone(), None);
    }
    Some(match &factors.gains {
        None => y,
        Some(gains) => y * each(gains, &rows),
    })
}

fn assert_batch(found: usize, batch: usize) {
    assert!(
        found == batch || found == 1,
        "the first axis is {found}, and {batch} examples have adapters of their own: expected {batch}, or 1 for what \
         all of them share"
    );
}

/// `[batch or 1, n, d_in]`.
fn by_example<const D: usize>(x: &Tensor<D>, batch: usize) -> Tensor<3> {
    let dims = x.dims();
    let d_in = dims[D - 1];
    if D > 2 {
        assert_batch(dims[0], batch);
        let n = dims[1..D - 1].iter().product();
        return x.clone().reshape([dims[0], n, d_in]);
    }
    let rows = if D == 2 { dims[0] } else { 1 };
    assert!(
        rows.is_multiple_of(batch),
        "{rows} rows do not share out among {batch} examples with adapters of their own; pick them with `in_rows`"
    );
    x.clone().reshape([batch, rows / batch, d_in])
}

/// The table's row of each example's adapter, its last one for the base: `[batch, 1, columns]`.
fn each(table: &Tensor<2>, rows: &Rows) -> Tensor<3> {
    let base = rows.adapters.len();
    let places = rows.of.iter().map(|adapter| adapter.unwrap_or(base) as i64);
    let places = TensorData::new(places.collect::<Vec<_>>(), [rows.of.len()]);
    let places = Tensor::<1, Int>::from_data(places, &table.device());
    table.clone().select(0, places).unsqueeze_dim(1)
}

/// Each example's scale at its own adapter's columns, 0 elsewhere: `[batch, 1, R]`, of the kind of `like`.
fn mask(factors: &Factors, rows: &Rows, like: &Tensor<3>) -> Tensor<3> {
    let total = factors.columns.iter().map(|(rank, _)| rank).sum();
    let mut values = vec![0.0f32; rows.of.len() * total];
    for (row, adapter) in values.chunks_exact_mut(total).zip(&rows.of) {
        let Some(adapter) = *adapter else { continue };
        let start: usize = factors.columns[..adapter]
            .iter()
            .map(|(rank, _)| rank)
            .sum();
        let (rank, scale) = factors.columns[adapter];
        row[start..start + rank].fill(scale as f32);
    }
    let data = TensorData::new(values, [rows.of.len(), 1, total]);
    Tensor::from_data(data, (&like.device(), like.dtype()))
}

/// The adapters side by side, as they were at the last step of this batch or anew.
fn factors(w: &BaseWeight<'_>, changes: &Changes<'_>, rows: &Rows) -> Factors {
    let Some(set) = changes.set else {
        return concatenate(w, changes);
    };
    let at_hand = lock(&rows.groups).weights.get(&set.id).cloned();
    // A clone of the module may be on another device.
    let fits = |factors: &Factors| {
        let mut tensors = factors.low_rank.iter().flatten().chain(&factors.gains);
        tensors.all(|tensor| tensor.device() == w.device() && tensor.dtype() == w.dtype())
    };
    at_hand.filter(fits).unwrap_or_else(|| {
        let made = concatenate(w, changes);
        lock(&rows.groups).weights.insert(set.id, made.clone());
        made
    })
}

fn concatenate(w: &BaseWeight<'_>, changes: &Changes<'_>) -> Factors {
    let (mut all_a, mut all_b) = (Vec::new(), Vec::new());
    let mut columns = Vec::new();
    let mut gains = Vec::new();
    let mut has_gain = false;
    let ones = || Tensor::<2>::ones([1, w.d_out()], (&w.device(), w.dtype()));
    for change in &changes.of {
        let factors = change.and_then(|change| change.factors.as_ref());
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
    Factors {
        low_rank: (!all_a.is_empty()).then(|| [Tensor::cat(all_a, 1), Tensor::cat(all_b, 0)]),
        columns,
        gains: has_gain.then(|| Tensor::cat(gains, 0)),
    }
}

/// The bias under each adapter, and the base's: `[adapters + 1, d_out]`.
fn bias_rows(bias: &Param<Tensor<1>>, changes: &Changes<'_>, rows: &Rows) -> Tensor<2> {
    let base = bias.base();
    let id = changes.set.map(|set| set.id);
    let at_hand = id.and_then(|id| lock(&rows.groups).biases.get(&id).cloned());
    if let Some(table) = at_hand.filter(|table| table.device() == base.device()) {
        return table;
    }
    let of = |change: &Option<&Change>| match change {
        None => base.clone(),
        Some(change) => change.apply(base.clone()),
    };
    let biases = changes.of.iter().map(of).chain([base.clone()]);
    let table = Tensor::stack::<2>(biases.collect(), 0);
    if let Some(id) = id {
        lock(&rows.groups).biases.insert(id, table.clone());
    }
    table
}

/// `x W` where some adapters have a weight of their own: one product for each weight that occurs, of the rows that have
/// it, so that no weight is copied for an example.
fn dense_by_adapter(x: Tensor<3>, w: &Tensor<2>, changes: &Changes<'_>, rows: &Rows) -> Tensor<3> {
    let [shared, n, d_in] = x.dims();
    let batch = rows.of.len();
    let x = match shared == batch {
        true => x,
        false => x.expand([batch, n, d_in]),
    };
    let device = x.device();
    let ints = |places: &[usize]| {
        let places: Vec<i64> = places.iter().map(|&place| place as i64).collect();
        let count = places.len();
        Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &device)
    };
    // The examples of each weight; those of the base and of adapters without one are the last.
    let mut groups = vec![Vec::new(); rows.adapters.len() + 1];
    for (example, adapter) in rows.of.iter().enumerate() {
        let own = adapter.filter(|_| changes.whole(*adapter).is_some());
        groups[own.unwrap_or(rows.adapters.len())].push(example);
    }
    let mut outputs = Vec::new();
    let mut order = Vec::with_capacity(batch);
    for (adapter, examples) in groups.iter().enumerate().filter(|(_, e)| !e.is_empty()) {
        let own = (adapter < rows.adapters.len()).then_some(adapter);
        let w = match changes.whole(own) {
            None => w.clone(),
            Some(change) => change.whole_or(w.clone()),
        };
        outputs.push(dense(x.clone().select(0, ints(examples)), w, None));
        order.extend_from_slice(examples);
    }
    let mut back = vec![0; batch];
    for (place, &example) in order.iter().enumerate() {
        back[example] = place;
    }
    Tensor::cat(outputs, 0).select(0, ints(&back))
}

/// What is in there is whole at any time, also after a panic.
fn lock(groups: &Mutex<Groups>) -> std::sync::MutexGuard<'_, Groups> {
    groups.lock().unwrap_or_else(PoisonError::into_inner)
}
