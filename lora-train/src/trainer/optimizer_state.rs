//! State of the optimizer in a checkpoint, checked before Burn gets it.
//!
//! Burn takes a record as it is. A moment of another shape than its parameter, or a tensor of no parameter, would be a panic there or
//! at the next step, and a state that lacks a part would be dropped silently.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::OptimizerRecord;
use burn::tensor::{Bytes, Tensor};
use burn_pack::{DType, Reader};
use std::collections::BTreeMap;

/// Tensors of a parameter's state under AdamW.
const MOMENTS: [&str; 2] = ["momentum.moment_1", "momentum.moment_2"];
/// Number of steps that the moments have seen.
const TIME: &str = "momentum.time";
/// Number of dimensions of the parameter.
const RANK: &str = "__rank";

/// State of the optimizer that a checkpoint holds.
pub struct OptimizerState {
    pub(super) record: OptimizerRecord,
    parts: BTreeMap<u64, Parts>,
}

/// Parts of one parameter's state.
#[derive(Default)]
struct Parts {
    /// Shapes of the two moments.
    moments: [Option<Vec<usize>>; 2],
    has_time: bool,
    rank: Option<usize>,
}

impl OptimizerState {
    /// Reads a state from the bytes of its file.
    ///
    /// # Errors
    /// The message says what is malformed, or no part of AdamW's state.
    pub(super) fn from_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        // The two readers share the bytes.
        let bytes = Bytes::from_bytes_vec(bytes).shared();
        let reader = Reader::from_bytes(bytes.clone()).map_err(|error| error.to_string())?;
        let mut parts = BTreeMap::<u64, Parts>::new();
        for (name, value) in reader.scalars() {
            let unknown = || format!("{name:?} is no part of AdamW's state");
            let (id, field) = divided(name).ok_or_else(unknown)?;
            let number: Option<u32> = (*value).try_into().ok();
            // The reader of the steps counts in `i32`.
            let number = number.filter(|&number| i32::try_from(number).is_ok());
            let number = number.ok_or_else(|| format!("{name:?} is no number of that kind"))?;
            let part = parts.entry(id).or_default();
            match field {
                RANK => part.rank = Some(number as usize),
                TIME => part.has_time = number > 0,
                _ => return Err(unknown()),
            }
        }
        for tensor in reader.into_tensors().map_err(|error| error.to_string())? {
            let name = &tensor.name;
            let place = divided(name).and_then(|(id, field)| {
                let index = MOMENTS.iter().position(|&moment| moment == field)?;
                (tensor.param_id == Some(id) && tensor.dtype == DType::F32).then_some((id, index))
            });
            let (id, index) =
                place.ok_or_else(|| format!("the tensor {name:?} is no moment of a parameter"))?;
            let part = parts.entry(id).or_default();
            part.moments[index] = Some(tensor.shape.to_vec());
        }
        let record = OptimizerRecord::from_bytes(bytes).map_err(|error| error.to_string())?;
        Ok(Self { record, parts })
    }

    /// Returns the record for a model, whose parameters the state must be of.
    ///
    /// # Errors
    /// The message says which part is missing or belongs to another model.
    pub(super) fn for_model<M: Module>(self, model: &M) -> Result<OptimizerRecord, String> {
        let mut shapes = Shapes(BTreeMap::new());
        model.visit(&mut shapes);
        for (id, part) in &self.parts {
            let Some(shape) = shapes.0.get(id) else {
                return Err(format!(
                    "it holds the state of {id}, which is no parameter of this model"
                ));
            };
            for (found, name) in part.moments.iter().zip(MOMENTS) {
                match found {
                    None => return Err(format!("`{id}.{name}` is missing")),
                    Some(found) if found == shape => {}
                    Some(found) => {
                        return Err(format!(
                            "`{id}.{name}` is {found:?}, and its parameter {shape:?}"
                        ));
                    }
                }
            }
            if !part.has_time || part.rank.is_some_and(|rank| rank != shape.len()) {
                return Err(format!(
                    "`{id}.{TIME}` or `{id}.{RANK}` is missing or wrong"
                ));
            }
        }
        Ok(self.record)
    }
}

/// Divides a name into the id of a parameter and a part of its state.
fn divided(name: &str) -> Option<(u64, &str)> {
    let (id, field) = name.split_once('.')?;
    Some((id.parse().ok()?, field))
}

/// Visitor that collects the shapes of parameters by their ids.
struct Shapes(BTreeMap<u64, Vec<usize>>);

impl ModuleVisitor for Shapes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.insert(param.id.val(), param.shape().to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;
    use burn::tensor::Device;
    use burn_pack::{Scalar, Writer};

    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<2>>,
    }

    fn model() -> One {
        let tensor = Tensor::<2>::from_floats([[1.0, 2.0, 3.0]], &Device::flex());
        One {
            weight: Param::initialized(ParamId::from(7), tensor),
        }
    }

    /// A file whose tensors are (name, shape, id) in f32, and whose scalars are numbers.
    fn file(tensors: &[(&str, &[usize], Option<u64>)], scalars: &[(&str, u64)]) -> Vec<u8> {
        let tensor = |(name, shape, id): &(&str, &[usize], Option<u64>)| {
            let bytes = vec![0; 4 * shape.iter().product::<usize>()];
            let bytes = Bytes::from_bytes_vec(bytes);
            burn_pack::Tensor::new((*name).into(), DType::F32, *shape, *id, bytes)
        };
        let mut writer = Writer::new(tensors.iter().map(tensor).collect());
        for (name, value) in scalars {
            writer = writer.with_scalar(name, Scalar::UInt(*value));
        }
        writer.into_bytes().unwrap().to_vec()
    }

    const FIRST: (&str, &[usize], Option<u64>) = ("7.momentum.moment_1", &[1, 3], Some(7));
    const SECOND: (&str, &[usize], Option<u64>) = ("7.momentum.moment_2", &[1, 3], Some(7));
    const SCALARS: [(&str, u64); 2] = [("7.__rank", 2), ("7.momentum.time", 21)];

    #[track_caller]
    fn refused(file: Vec<u8>) -> String {
        let state = OptimizerState::from_bytes(file);
        state
            .and_then(|state| state.for_model(&model()))
            .unwrap_err()
    }

    #[test]
    fn a_state_of_this_model_is_taken() {
        let state = OptimizerState::from_bytes(file(&[FIRST, SECOND], &SCALARS)).unwrap();
        assert_eq!(state.for_model(&model()).unwrap().len(), 2);
        // Before the first step there is none.
        let state = OptimizerState::from_bytes(file(&[], &[])).unwrap();
        assert!(state.for_model(&model()).unwrap().is_empty());
    }

    #[test]
    fn a_state_that_burn_would_panic_at_or_drop_is_refused() {
        let other = ("7.momentum.moment_2", &[3, 1][..], Some(7));
        let message = refused(file(&[FIRST, other], &SCALARS));
        assert!(
            message.contains("is [3, 1], and its parameter [1, 3]"),
            "{message}"
        );
        let nobody = ("7.momentum.moment_2", &[1, 3][..], None);
        let message = refused(file(&[FIRST, nobody], &SCALARS));
        assert!(message.contains("no moment of a parameter"), "{message}");
        let message = refused(file(&[FIRST], &SCALARS));
        assert!(message.contains("moment_2` is missing"), "{message}");
        let message = refused(file(&[FIRST, SECOND], &SCALARS[..1]));
        assert!(message.contains("missing or wrong"), "{message}");
        for (name, value) in [
            ("7.__rank", 9),
            ("7.momentum.time", 0),
            ("7.momentum.time", u64::MAX),
            ("7.momentum.time", 1 << 31),
            ("8.__rank", 2),
            ("7.momentum.beta", 2),
            ("seven", 2),
        ] {
            let mut scalars = SCALARS.to_vec();
            scalars.retain(|(other, _)| *other != name);
            scalars.push((name, value));
            refused(file(&[FIRST, SECOND], &scalars));
        }
    }
}
