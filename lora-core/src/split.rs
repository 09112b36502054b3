//! A frozen weight in parts of rows, for a device that cannot bind it in one buffer: [`SplitWeight`].
//!
//! Token embeddings are the largest tensors of small models: GPT-2's is 147 MiB, and software Vulkan binds 128. The
//! rows of a part are those of the weight in files, so that parts serve both the lookup and an output layer that is
//! tied to it.

use crate::bare::{are_parts_kept, is_bare, placeholder};
use crate::layout::{Place, SPLIT_COMPONENT, Visit, param_id, put, visit};
use crate::ops::{linear, max_buffer_bytes, operand};
use burn::module::{Module, Param, ParamId, Reparameterization};
use burn::tensor::module::embedding;
use burn::tensor::{Device, Int, Tensor, TensorData};
use std::any::Any;
use std::collections::BTreeMap;

/// Number of rows that the length of a part is a multiple of, where so many fit: matrix products like round sizes.
const ROUND: usize = 64;

/// A frozen weight `[rows, d]` in parts of consecutive rows.
///
/// The parts live on the weight's [`Param`], and the parameter itself holds a placeholder without memory.
/// [`LoraEmbedding`](crate::LoraEmbedding) reads the parts; any other layer reads the joined weight that Burn composes, which
/// the device may refuse.
#[derive(Module, Debug)]
pub struct SplitWeight {
    /// Parts, each `[rows of the part, d]`.
    parts: Vec<Param<Tensor<2>>>,
}

/// Returns the number of rows in each part of a weight that the device cannot bind in one buffer, in f32; the last part may have
/// fewer. `None` if the device can.
///
/// # Shapes
/// - `shape`: `[rows, d]`
pub fn rows_per_part([rows, d]: [usize; 2], device: &Device) -> Option<usize> {
    let limit = usize::try_from(max_buffer_bytes(device)?).unwrap_or(usize::MAX);
    let most = limit / size_of::<f32>() / d.max(1);
    if rows <= most {
        return None;
    }
    // Parts of like size, so that one tuned matrix product serves all.
    let even = rows.div_ceil(rows.div_ceil(most.max(1)));
    let round = even.next_multiple_of(ROUND);
    Some(if round <= most { round } else { even })
}

/// Creates a frozen weight in parts of `rows` rows. One part after another goes to the device.
///
/// # Shapes
/// - `values`: `[all rows, d]`
///
/// # Panics
/// If `rows` is 0.
pub fn split_weight(
    id: ParamId,
    values: &TensorData,
    rows: usize,
    device: &Device,
) -> Param<Tensor<2>> {
    let [all, d] = [values.shape()[0], values.shape()[1]];
    let bytes = d * values.dtype().size();
    let part = |(index, bytes): (usize, &[u8])| {
        let shape = [rows.min(all - index * rows), d];
        let data = TensorData::from_bytes_vec(bytes.to_vec(), shape, values.dtype());
        // As in Burn's own layers: memory that lives as long as the model is allocated apart.
        device.memory_persistent_allocations(data, |data| Tensor::from_data(data, device))
    };
    let parts = values.as_bytes().chunks(rows * bytes).enumerate().map(part);
    let split = SplitWeight::new(id, parts);
    let empty = Param::initialized(id, placeholder([all, d].into(), device));
    let empty = empty.set_require_grad(false);
    // Alone, a parameter is a module without a path.
    put(empty, BTreeMap::from([(String::new(), split)]))
}

impl SplitWeight {
    /// Creates a weight of frozen parts. Their ids depend on `id` alone, which is the same in every process.
    pub(crate) fn new(id: ParamId, parts: impl Iterator<Item = Tensor<2>>) -> Self {
        let part = |(index, part): (usize, Tensor<2>)| {
            let id = param_id(&format!("{id}.{SPLIT_COMPONENT}.{index}"));
            Param::initialized(id, part).set_require_grad(false)
        };
        Self {
            parts: parts.enumerate().map(part).collect(),
        }
    }

    /// Returns the split weight that is on a parameter.
    pub fn on<const D: usize>(weight: &Param<Tensor<D>>) -> Option<&Self> {
        weight.reparameterization()
    }

    /// Returns the parts, each `[rows of the part, d]`.
    pub fn parts(&self) -> Vec<Tensor<2>> {
        self.parts.iter().map(Param::val).collect()
    }

    /// Returns the parts of the transpose, each `[d, rows of the part]`.
    pub(crate) fn columns(&self) -> Vec<Tensor<2>> {
        self.parts().into_iter().map(Tensor::transpose).collect()
    }

    /// Joins the parts to one tensor, which the device may refuse.
    pub(crate) fn joined(&self) -> Tensor<2> {
        Tensor::cat(self.parts(), 0)
    }

    /// Returns the size of a row.
    pub(crate) fn d(&self) -> usize {
        self.parts[0].dims()[1]
    }

    /// Returns the device.
    pub(crate) fn device(&self) -> Device {
        self.parts[0].lazy_device()
    }

    /// Reads the first values, at most `most`, row-major. Of the last part that is needed, whole rows are read.
    pub(crate) fn first_values(&self, most: usize) -> Option<Vec<f32>> {
        let mut values = Vec::new();
        for part in &self.parts {
            let left = most.saturating_sub(values.len());
            if left == 0 {
                break;
            }
            let [rows, d] = part.dims();
            let part = part.val().narrow(0, 0, rows.min(left.div_ceil(d)));
            let part = part.into_data().convert::<f32>();
            values.extend_from_slice(part.as_slice().ok()?);
        }
        values.truncate(most);
        Some(values)
    }

    /// Looks up rows.
    ///
    /// # Shapes
    /// - `ids`: `[batch, seq]`
    /// - returns `[batch, seq, d]`
    pub(crate) fn embedding(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let look_up = |part: &Param<Tensor<2>>, start: usize| {
            // Ids of other parts look up some row, which the row of their own part replaces.
            let own = ids.clone() - start as i64;
            embedding(part.val(), own.clamp(0, part.dims()[0] as i64 - 1))
        };
        let mut start = self.parts[0].dims()[0];
        let mut found = look_up(&self.parts[0], 0); // [batch, seq, d]
        for part in &self.parts[1..] {
            let [rows, d] = part.dims();
            let reached = ids.clone().greater_equal_elem(start as i64);
            let reached = reached.unsqueeze_dim::<3>(2).expand([batch, seq, d]);
            found = found.mask_where(reached, look_up(part, start));
            start += rows;
        }
        found
    }

    /// Returns `x Wᵀ`: the output layer that an embedding is tied to.
    ///
    /// # Shapes
    /// - `x`: `[..., d]`
    /// - returns `[..., rows]`
    pub(crate) fn linear_transposed<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let columns = self.columns().into_iter();
        let products = columns.map(|part| linear(x.clone(), operand(part), None));
        Tensor::cat(products.collect(), D - 1)
    }
}

impl Reparameterization for SplitWeight {
    const NAME: &'static str = SPLIT_COMPONENT;

    /// Returns the joined weight.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if is_bare() || are_parts_kept() {
            base
        } else {
            self.joined().reshape(base.shape())
        }
    }
}

/// Returns the split weights of a module, by the path of their parameter. They share memory with the module.
pub fn split_weights<M: Module>(module: &M) -> BTreeMap<String, SplitWeight> {
    #[derive(Default)]
    struct Collect(BTreeMap<String, SplitWeight>);
    impl Visit for Collect {
        fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
            let part: Option<&Param<Tensor<2>>> = (param as &dyn Any).downcast_ref();
            if let (Some(path), Some(part)) = (place.split_weight(), part) {
                let empty = SplitWeight { parts: Vec::new() };
                let split = self.0.entry(path).or_insert(empty);
                split.parts.push(part.clone());
            }
        }
    }
    visit(module, Collect::default()).0
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_end_within_a_row_or_a_part() {
        let all: Vec<f32> = (0..60).map(|i| i as f32).collect();
        let data = TensorData::new(all.clone(), [10, 6]);
        let param = split_weight(ParamId::from(7), &data, 4, &Device::flex());
        let weight = SplitWeight::on(&param).unwrap();
        for most in [0, 5, 22, 24, 25, 60, 100] {
            let expected = &all[..most.min(60)];
            assert_eq!(weight.first_values(most).as_deref(), Some(expected));
        }
    }
}
