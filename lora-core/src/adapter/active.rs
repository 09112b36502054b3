//! The adapters that a layer applies, here and now.

use super::low_rank::LowRankAdapter;
use super::per_example::PerExample;
use super::set::AdapterSet;
use burn::module::Param;
use burn::tensor::Tensor;

/// The adapters that are active on a layer.
pub(crate) enum Active<'a> {
    /// No low-rank adapter.
    None,
    /// One adapter, for all that is computed.
    One(&'a LowRankAdapter),
    /// Another adapter for each example of the batch.
    PerExample(PerExample<'a>),
}

/// Returns the adapters that are active on the layer with this weight and bias.
pub(crate) fn active<'a>(
    weight: &'a Param<Tensor<2>>,
    bias: Option<&'a Param<Tensor<1>>>,
) -> Active<'a> {
    if let Some(batch) = PerExample::find(weight, bias) {
        return Active::PerExample(batch);
    }
    let adapter = match weight.reparameterization::<LowRankAdapter>() {
        Some(adapter) => Some(adapter),
        None => AdapterSet::on(weight).and_then(|set| set.active()?.factors.as_ref()),
    };
    match adapter.filter(|adapter| adapter.is_enabled()) {
        Some(adapter) => Active::One(adapter),
        None => Active::None,
    }
}

/// Returns true if an adapter, or a set of adapters, is on a weight.
pub(crate) fn is_adapted(weight: &Param<Tensor<2>>) -> bool {
    weight.reparameterization::<LowRankAdapter>().is_some() || AdapterSet::on(weight).is_some()
}
