//! The values of an adapter in a PEFT file, on the way to the adapter's own layout.

use super::tensors::{FileTensor, INIT_KEY, Part, SLICES_KEY, SlicesByModule, compact, transpose};
use crate::attach::AdapterValues;
use crate::config::{LoraInit, LoraScaling};
use crate::error::LoraError;
use crate::fingerprint::BaseFingerprint;
use crate::layout::{AdaptedModule, Slices};
use burn::tensor::{Bytes, DType, TensorData};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The tensors of a file, with what this crate says of them in its metadata.
pub(crate) struct AdapterFile<'a> {
    pub path: PathBuf,
    pub tensors: SafeTensors<'a>,
    slices: SlicesByModule,
    /// How the factors started, where the file holds the difference to their start.
    pub start: Option<LoraInit>,
    /// What it says of the base that the adapter is of.
    pub base: Option<BaseFingerprint>,
    /// What the file notes beside its tensors, but for its format.
    pub metadata: BTreeMap<String, String>,
}

impl<'a> AdapterFile<'a> {
    pub fn new(path: &Path, bytes: &'a [u8]) -> Result<Self, LoraError> {
        let malformed = |message: String| LoraError::Malformed {
            path: path.into(),
            message,
        };
        let no_safetensors = |error| malformed(format!("is not a safetensors file: {error}"));
        let header = header(bytes).map_err(malformed)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(no_safetensors)?;
        let metadata = header.metadata().iter().flatten();
        let metadata: BTreeMap<String, String> = metadata
            .filter(|(key, _)| key.as_str() != "format")
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let slices = match metadata.get(SLICES_KEY) {
            None => SlicesByModule::new(),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| malformed(format!("metadata `{SLICES_KEY}`: {error}")))?,
        };
        let start = match metadata.get(INIT_KEY).map(|text| text.parse::<LoraInit>()) {
            None => None,
            Some(Ok(init)) if init.is_residual() => Some(init),
            Some(Ok(init)) => {
                let message = format!("metadata `{INIT_KEY}`: {init} starts at no weight");
                return Err(malformed(message));
            }
            Some(Err(error)) => return Err(malformed(format!("metadata `{INIT_KEY}`: {error}"))),
        };
        Ok(Self {
            path: path.into(),
            tensors,
            slices,
            start,
            base: BaseFingerprint::read(&metadata).map_err(malformed)?,
            metadata,
        })
    }

    fn malformed(&self, message: String) -> LoraError {
        LoraError::Malformed {
            path: self.path.clone(),
            message,
        }
    }

    /// The adapter of a module, whose rank and slices become those that the file tells.
    pub fn adapter(
        &self,
        module: &mut AdaptedModule,
        expected: &[FileTensor],
        scaling: LoraScaling,
    ) -> Result<AdapterValues, LoraError> {
        let [d_in, d_out] = module.shape;
        // One row a rank, of each.
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let (mut magnitude, mut bias) = (None, None);
        for tensor in expected {
            let values = self.values(&tensor.name, &tensor.shape)?;
            let vector = |values| Some(TensorData::new(values, [d_out]));
            match tensor.part {
                Part::A => a = values,
                Part::B => b = transpose(&values, [d_out, tensor.shape[1]]),
                Part::Magnitude => magnitude = vector(values),
                Part::Bias => bias = vector(values),
            }
        }
        let mut rank = module.trained_rank();
        if let Some(saved) = self.slices.get(&module.module) {
            let slices = saved
                .of(d_out)
                .filter(|slices: &Slices| rank.is_multiple_of(slices.adapted.len()));
            let blocks = slices.and_then(|slices| {
                let rank = rank / slices.adapted.len();
                Some((compact(&b, rank, d_out, &slices)?, slices))
            });
            let (blocks, slices) = blocks.ok_or_else(|| {
                self.malformed(format!("`B` of `{}` is not in its slices", module.module))
            })?;
            rank /= slices.adapted.len();
            b = blocks;
            module.slices = Some(slices);
        }
        let mut start = None;
        if self.start.is_some() {
            if !rank.is_multiple_of(2) {
                return Err(self.malformed(format!(
                    "`{}` has rank {rank}, which is not that of factors and their start",
                    module.module
                )));
            }
            rank /= 2;
            let start_a;
            let mut start_b;
            (a, start_a) = halves(&a, rank * d_in);
            (b, start_b) = halves(&b, rank * module.block_width());
            start_b.iter_mut().for_each(|value| *value = -*value);
            start = Some((start_a, start_b));
        }
        module.residual_init |= start.is_some();
        if module.rank != rank {
            module.rank = rank;
            module.alpha = scaling.alpha(module.scale, rank);
        }
        let [a_shape, b_shape] = module.factor_shapes();
        let pair = |(a, b): (Vec<f32>, Vec<f32>)| {
            [
                TensorData::new(transpose(&a, [a_shape[1], a_shape[0]]), a_shape),
                TensorData::new(b, b_shape),
            ]
        };
        Ok(AdapterValues {
            factors: pair((a, b)),
            start: start.map(pair),
            magnitude,
            bias,
        })
    }

    /// The values of a tensor of this shape, in f32.
    pub fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, LoraError> {
        let tensor = self.tensors.tensor(name);
        let tensor = tensor.map_err(|error| self.malformed(format!("tensor `{name}`: {error}")))?;
        if tensor.shape() != expected {
            return Err(LoraError::TensorShape {
                path: self.path.clone(),
                name: name.into(),
                expected: expected.to_vec(),
                found: tensor.shape().to_vec(),
            });
        }
        let dtype = match tensor.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F64 => DType::F64,
            other => {
                return Err(self.malformed(format!(
                    "tensor `{name}` is {other:?}, expected F32, F16, BF16 or F64"
                )));
            }
        };
        let bytes = Bytes::from_bytes_vec(tensor.data().to_vec());
        let data = TensorData::from_bytes(bytes, expected, dtype).convert::<f32>();
        let values = data
            .try_to_vec::<f32>()
            .map_err(|error| self.malformed(format!("tensor `{name}`: {error:?}")))?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(self.malformed(format!("tensor `{name}` has values that are not finite")));
        }
        Ok(values)
    }
}

/// The header of a safetensors file, whose tensors end where the file does.
///
/// The `safetensors` crate adds sizes up without a check for overflow when it compares the two: a header of tensors
/// near 2^64 bytes passes there, and reading one of them panics.
fn header(bytes: &[u8]) -> Result<Metadata, String> {
    let cut = || "is not a safetensors file: it ends inside its header".to_string();
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
    let json = rest.get(..length).ok_or_else(cut)?;
    let header: Metadata = serde_json::from_slice(json)
        .map_err(|error| format!("is not a safetensors file: {error}"))?;
    let values = rest.len() - length;
    match header.data_len() == values {
        true => Ok(header),
        false => Err(format!(
            "is not a safetensors file: its header describes {} bytes of tensors, but {values} follow",
            header.data_len()
        )),
    }
}

/// Chunks of `length` by turns: the first, third and so on, and the others.
fn halves(values: &[f32], length: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (index, chunk) in values.chunks(length).enumerate() {
        match index % 2 {
            0 => first.extend_from_slice(chunk),
            _ => second.extend_from_slice(chunk),
        }
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_that_add_up_past_the_machine_word_are_an_error_and_no_panic() {
        // Nine tensors of nearly 2^61 bytes, whose end plus the header is 7 in 64 bits.
        let each = (1u64 << 61) - 8;
        let info = |i: u64, size: u64| {
            let start = i * each;
            let end = start + size;
            format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
        };
        let mut infos: Vec<String> = (0..8).map(|i| info(i, each)).collect();
        infos.push(info(8, u64::MAX - 8 * each));
        let json = format!("{{{}}}", infos.join(","));
        let bytes = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
        let error = AdapterFile::new(Path::new("adapter"), &bytes)
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .contains("describes 18446744073709551615 bytes"),
            "{error}"
        );
    }
}
