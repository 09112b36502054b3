//! Trained rows of an embedding: [`TokenRows`].

use super::low_rank::widened;
use super::switch::AdapterSwitch;
use crate::bare::is_bare;
use crate::layout::ADAPTER_COMPONENT;
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::{Int, Tensor, TensorData};

/// Rows of single tokens in the place of those of a frozen embedding: PEFT's `trainable_token_indices`.
///
/// Rows replace those of the base and are not added to them, so that the adapter does not depend on how the base's rows of new
/// tokens were initialized.
#[derive(Module, Debug)]
pub struct TokenRows {
    /// Trainable rows, `[tokens, d]`.
    pub rows: Param<Tensor<2>>,
    /// Ids of the tokens.
    #[module(skip)]
    pub(crate) ids: Vec<usize>,
    /// True if a token has a column of the weight, `[d, vocabulary]`, in place of a row.
    #[module(skip)]
    pub(crate) by_column: bool,
    #[module(skip)]
    pub(crate) switch: AdapterSwitch,
}

impl Reparameterization for TokenRows {
    const NAME: &'static str = ADAPTER_COMPONENT;

    /// Returns the base with the rows of the tokens replaced, or the base itself while the adapter is disabled.
    ///
    /// Values are copied, not computed, so that a merge is exact in the type of the base.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if is_bare() || !self.switch.is_active() {
            return base;
        }
        let (shape, dtype, device) = (base.shape(), base.dtype(), base.device());
        let base: Tensor<2> = widened(base).reshape([shape[0], shape[1]]);
        let (axis, rows) = if self.by_column {
            (1, widened(self.rows.val()).transpose())
        } else {
            (0, widened(self.rows.val()))
        };
        let count = shape[axis];
        let mut sources: Vec<i64> = (0..count as i64).collect();
        let trained = self.ids.iter().zip(count as i64..);
        trained.for_each(|(&id, row)| sources[id] = row);
        let sources = Tensor::<1, Int>::from_data(TensorData::new(sources, [count]), &device);
        let both = Tensor::cat(vec![base, rows], axis);
        both.select(axis, sources).cast(dtype).reshape(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;
    use burn::tensor::Device;

    fn rows(by_column: bool, device: &Device) -> TokenRows {
        let values = Tensor::<2>::from_floats([[0.1, 0.7], [0.3, -0.9]], device);
        TokenRows {
            rows: Param::initialized(ParamId::new(), values.require_grad()),
            ids: vec![2, 0],
            by_column,
            switch: AdapterSwitch::on(),
        }
    }

    /// A sum of the base and the rows would turn −0 into 0, and what is not finite in the base into NaN.
    #[test]
    fn values_are_copied_whatever_they_are() {
        let device = Device::flex().autodiff();
        let base = [
            [-0.0, 2.0],
            [f32::NEG_INFINITY, -0.0],
            [f32::NAN, f32::INFINITY],
        ];
        let base = Tensor::<2>::from_floats(base, &device);
        let mut adapter = rows(false, &device);
        adapter.rows = Param::from_tensor(Tensor::from_floats([[-0.0, 0.7], [0.3, -0.0]], &device));
        let bits = |weight: Tensor<2>| -> Vec<u32> {
            let values: Vec<f32> = weight.into_data().try_to_vec().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        };
        let expected = [0.3, -0.0, f32::NEG_INFINITY, -0.0, -0.0, 0.7].map(f32::to_bits);
        assert_eq!(bits(adapter.apply(base.clone())), expected);
        adapter.by_column = true;
        assert_eq!(bits(adapter.apply(base.transpose()).transpose()), expected);
    }

    #[test]
    fn rows_replace_those_of_the_base_exactly_and_alone_get_gradients() {
        let device = Device::flex().autodiff();
        let base = Tensor::<2>::from_floats([[1.1, 2.0], [3.3, 4.0], [5.0, 6.0]], &device);
        let adapter = rows(false, &device);
        let weight = adapter.apply(base.clone());
        let found: Vec<f32> = weight.clone().into_data().try_to_vec().unwrap();
        assert_eq!(found, [0.3, -0.9, 3.3, 4.0, 0.1, 0.7]);
        let columns = rows(true, &device).apply(base.clone().transpose());
        assert_eq!(columns.transpose().into_data(), weight.clone().into_data());

        let factors = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
        let gradients = (weight * factors).sum().backward();
        let gradient = adapter.rows.val().grad(&gradients).unwrap();
        let found: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
        assert_eq!(found, [5.0, 6.0, 1.0, 2.0]);

        adapter.switch.set_enabled(false);
        assert_eq!(adapter.apply(base.clone()).into_data(), base.into_data());
    }
}
