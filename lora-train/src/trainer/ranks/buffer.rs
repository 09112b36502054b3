//! Gradients as one buffer on the host.

use crate::TrainError;
use crate::host;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData, Transaction};
use std::collections::BTreeMap;

/// Places of gradients in a buffer, one after the other.
///
/// A parameter is named by its number among the float parameters of the module: ids differ between processes, and the order does
/// not. Only parameters that have a gradient are listed, which are those that are trained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout(BTreeMap<u32, Vec<usize>>);

impl Layout {
    /// Returns the layout of some gradients.
    pub fn of<M: Module>(module: &M, grads: &GradientsParams) -> Self {
        let mut visitor = Shapes {
            grads,
            next: 0,
            found: BTreeMap::new(),
        };
        module.visit(&mut visitor);
        Self(visitor.found)
    }

    /// Adds the gradients of another layout.
    pub fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.0.values().map(|shape| elements(shape)).sum()
    }

    /// Returns a number that two different layouts hardly share; 0 for an empty one.
    pub fn digest(&self) -> u64 {
        if self.0.is_empty() {
            return 0;
        }
        1 << 32 | u64::from(crc32c::crc32c(&self.to_bytes()))
    }

    /// Writes the layout as a message: for each parameter its number, its number of axes and their lengths.
    pub fn to_bytes(&self) -> Vec<u8> {
        let entry = |(&number, shape): (&u32, &Vec<usize>)| {
            let mut words = vec![number, shape.len() as u32];
            words.extend(shape.iter().map(|&length| length as u32));
            words
        };
        let words = self.0.iter().flat_map(entry);
        words.flat_map(u32::to_le_bytes).collect()
    }

    /// Reads a message; `None` if it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks() else {
            return None;
        };
        let mut words = words.iter().map(|&bytes| u32::from_le_bytes(bytes));
        let mut found = BTreeMap::new();
        while let Some(number) = words.next() {
            let axes = words.next()?;
            let shape = (0..axes).map(|_| Some(words.next()? as usize));
            found.insert(number, shape.collect::<Option<Vec<usize>>>()?);
        }
        Some(Self(found))
    }

    /// Copies gradients from the device in one transfer. Those that are missing are zero.
    pub fn read<M: Module>(
        &self,
        module: &M,
        grads: GradientsParams,
    ) -> Result<Vec<f32>, TrainError> {
        let mut reader = Reader {
            grads,
            next: 0,
            transaction: Some(Transaction::default()),
            numbers: Vec::new(),
        };
        module.visit(&mut reader);
        let read = reader.transaction.unwrap_or_default().try_execute();
        let read = read.map_err(|error| {
            TrainError::burn(format!("the gradients cannot be read back: {error:?}"))
        })?;
        let mut data: BTreeMap<u32, TensorData> = reader.numbers.into_iter().zip(read).collect();
        let mut values = Vec::with_capacity(self.len());
        for (number, shape) in &self.0 {
            let end = values.len() + elements(shape);
            if let Some(data) = data.remove(number) {
                values.extend(host::floats(data)?);
            }
            values.resize(end, 0.0);
        }
        Ok(values)
    }

    /// Copies the values of a buffer to the device as gradients.
    pub fn write<M: Module>(&self, module: &M, values: &[f32], device: &Device) -> GradientsParams {
        let mut writer = Writer {
            layout: self,
            next: 0,
            rest: values,
            device,
            grads: GradientsParams::new(),
        };
        module.visit(&mut writer);
        writer.grads
    }
}

fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Counts the parameters of a walk and returns the number of the current one.
fn number(next: &mut u32) -> u32 {
    *next += 1;
    *next - 1
}

struct Shapes<'a> {
    grads: &'a GradientsParams,
    next: u32,
    found: BTreeMap<u32, Vec<usize>>,
}

impl ModuleVisitor for Shapes<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let number = number(&mut self.next);
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.found.insert(number, grad.dims().to_vec());
        }
    }
}

struct Reader {
    grads: GradientsParams,
    next: u32,
    transaction: Option<Transaction>,
    /// Numbers of the parameters in the transaction.
    numbers: Vec<u32>,
}

impl ModuleVisitor for Reader {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let number = number(&mut self.next);
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            let transaction = self.transaction.take().unwrap_or_default();
            self.transaction = Some(transaction.register(grad));
            self.numbers.push(number);
        }
    }
}

struct Writer<'a> {
    layout: &'a Layout,
    next: u32,
    rest: &'a [f32],
    device: &'a Device,
    grads: GradientsParams,
}

impl ModuleVisitor for Writer<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let number = number(&mut self.next);
        if let Some(shape) = self.layout.0.get(&number) {
            let (own, rest) = self.rest.split_at(elements(shape));
            self.rest = rest;
            let data = TensorData::new(own.to_vec(), shape.clone());
            let grad = Tensor::<D>::from_data(data, self.device);
            self.grads.register(param.id, grad);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Distribution;

    fn linear() -> (Linear, GradientsParams) {
        let device = Device::flex().autodiff();
        let linear = LinearConfig::new(3, 5).init(&device);
        let input = Tensor::<2>::random([2, 3], Distribution::Default, &device);
        let grads = linear.forward(input).sum().backward();
        let grads = GradientsParams::from_grads(grads, &linear);
        (linear, grads)
    }

    #[test]
    fn gradients_come_back_from_a_buffer_in_another_process() {
        let (linear, grads) = linear();
        let layout = Layout::of(&linear, &grads);
        assert_eq!(layout.len(), 20);
        assert_eq!(Layout::from_bytes(&layout.to_bytes()), Some(layout.clone()));
        assert_eq!(Layout::from_bytes(&layout.to_bytes()[1..]), None);
        let expected = host::values(grads.get::<2>(linear.weight.id).unwrap()).unwrap();
        let values = layout.read(&linear, grads).unwrap();
        // Ids differ there.
        let other = super::tests::linear().0;
        let found = layout.write(&other, &values, &Device::flex());
        let found = found.get::<2>(other.weight.id).unwrap();
        assert_eq!(found.dims(), [3, 5]);
        assert_eq!(host::values(found).unwrap(), expected);
    }

    #[test]
    fn a_missing_gradient_is_zero_in_the_buffer_and_joined_layouts_have_both() {
        let (linear, mut grads) = linear();
        let bias = linear.bias.as_ref().unwrap().id;
        let whole = Layout::of(&linear, &grads);
        grads.remove::<1>(bias);
        let mut part = Layout::of(&linear, &grads);
        assert_ne!(part.digest(), whole.digest());
        let values = whole.read(&linear, grads).unwrap();
        assert_eq!(values[15..], [0.0; 5]);
        part.add(whole.clone());
        assert_eq!(part, whole);
        assert_eq!(Layout::default().digest(), 0);
    }
}
