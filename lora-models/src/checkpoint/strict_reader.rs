//! Strict loading: every tensor is used, ignored for a reason, or an error.

use super::host_tensor::not_float;
use super::layout::file_name;
use super::{Checkpoint, DType, HostTensor, IgnoredTensor, LoadReport, is_float};
use crate::error::ModelError;
use lora_core::HalfFloat;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Reader of a checkpoint that keeps account of the tensors in use.
///
/// A tensor that a checkpoint silently lacks would start from random values, and a left-over tensor shows that the
/// model is not the one that was saved; neither is noticed until the outputs are wrong. So [`check`](Self::check) the
/// whole plan first, [`take`](Self::take) what the model needs, [`ignore`](Self::ignore) what it does not need, and
/// [`finish`](Self::finish), which refuses the rest.
#[derive(Debug)]
pub struct StrictReader<'a> {
    checkpoint: &'a Checkpoint,
    taken: BTreeSet<String>,
    ignored: BTreeMap<String, String>,
    /// Start of the clock; `None` in WebAssembly, whose standard library has no clock.
    started: Option<Instant>,
}

impl<'a> StrictReader<'a> {
    /// Starts the account of a checkpoint, and its clock.
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        Self {
            checkpoint,
            taken: BTreeSet::new(),
            ignored: BTreeMap::new(),
            started: cfg!(not(target_family = "wasm")).then(Instant::now),
        }
    }

    /// True if the checkpoint has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.contains(name)
    }

    /// Compares the names and shapes that a model needs with the checkpoint, before anything is read.
    ///
    /// All tensors of `expected` must exist, those of `optional` may; both must have their shapes.
    ///
    /// # Errors
    /// [`ModelError::TensorMissing`] with all names that are missing, else [`ModelError::TensorShape`] with the first
    /// tensor of another shape, else [`ModelError::TensorDtype`] with the first that does not hold floats.
    pub fn check(
        &self,
        expected: &[(String, Vec<usize>)],
        optional: &[(String, Vec<usize>)],
    ) -> Result<(), ModelError> {
        let missing: Vec<String> = expected
            .iter()
            .filter(|(name, _)| !self.has(name))
            .map(|(name, _)| name.clone())
            .collect();
        if !missing.is_empty() {
            return Err(ModelError::TensorMissing {
                path: self.checkpoint.path().into(),
                names: missing,
            });
        }
        let all = expected.iter().chain(optional);
        let present: Vec<_> = all.filter(|(name, _)| self.has(name)).collect();
        for (name, shape) in &present {
            self.check_shape(name, shape)?;
        }
        for (name, _) in &present {
            match self.checkpoint.dtype(name) {
                Some(dtype) if !is_float(dtype) => {
                    return Err(not_float(name, dtype).at(self.checkpoint.path()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads a tensor that must have the given shape, and counts it as used.
    ///
    /// A tensor that is taken twice, for tied weights, is read twice and counted once.
    ///
    /// # Errors
    /// [`ModelError::TensorMissing`], [`ModelError::TensorShape`], and the errors of [`Checkpoint::read_finite`].
    pub fn take(&mut self, name: &str, expected_shape: &[usize]) -> Result<HostTensor, ModelError> {
        if self.has(name) {
            self.check_shape(name, expected_shape)?;
        }
        let tensor = self.checkpoint.read_finite(name)?;
        self.count(name);
        Ok(tensor)
    }

    /// Returns the elements in the mapped pages of the file, if they can be used there; otherwise as
    /// [`take`](Self::take).
    ///
    /// # Errors
    /// [`ModelError::TensorShape`] if the tensor has another shape, [`ModelError::NotFinite`].
    pub(crate) fn take_mapped(
        &mut self,
        name: &str,
        expected_shape: &[usize],
    ) -> Result<Option<bytes::Bytes>, ModelError> {
        self.mapped(name, expected_shape, self.checkpoint.mapped_f32(name)?)
    }

    /// Returns the elements of a 16-bit type in the mapped pages of the file, as [`take_mapped`](Self::take_mapped).
    ///
    /// # Errors
    /// [`ModelError::TensorShape`] if the tensor has another shape, [`ModelError::NotFinite`].
    pub(crate) fn take_mapped_half(
        &mut self,
        name: &str,
        expected_shape: &[usize],
        half: HalfFloat,
    ) -> Result<Option<bytes::Bytes>, ModelError> {
        self.mapped(
            name,
            expected_shape,
            self.checkpoint.mapped_half(name, half)?,
        )
    }

    fn mapped(
        &mut self,
        name: &str,
        expected_shape: &[usize],
        elements: Option<bytes::Bytes>,
    ) -> Result<Option<bytes::Bytes>, ModelError> {
        if elements.is_some() {
            self.check_shape(name, expected_shape)?;
            self.count(name);
        }
        Ok(elements)
    }

    /// Returns the 16-bit type of a tensor; `None` for other types.
    pub(crate) fn half_of(&self, name: &str) -> Option<HalfFloat> {
        match self.checkpoint.dtype(name)? {
            DType::F16 => Some(HalfFloat::F16),
            DType::BF16 => Some(HalfFloat::Bf16),
            _ => None,
        }
    }

    fn count(&mut self, name: &str) {
        // A tensor may be taken after a pattern covered it: then it is used, not ignored.
        self.ignored.remove(name);
        self.taken.insert(name.to_string());
    }

    /// Ignores the tensors that are not taken yet and whose names satisfy `matches`; returns their number.
    ///
    /// `reason` goes into the report: for example "causal mask", for the buffers of old GPT-2 files whose names end in
    /// `.attn.bias`. The dot matters: the parameter `c_attn.bias` has the same ending without it.
    pub fn ignore(&mut self, reason: &str, matches: impl Fn(&str) -> bool) -> usize {
        let before = self.ignored.len();
        for name in self.checkpoint.names() {
            if !self.taken.contains(name) && matches(name) {
                self.ignored
                    .entry(name.to_string())
                    .or_insert_with(|| reason.to_string());
            }
        }
        self.ignored.len() - before
    }

    /// Returns the tensors that are neither taken nor ignored so far, sorted.
    pub fn left_over(&self) -> Vec<String> {
        self.checkpoint
            .names()
            .filter(|&name| !self.taken.contains(name) && !self.ignored.contains_key(name))
            .map(str::to_string)
            .collect()
    }

    /// Ends the account and returns its report.
    ///
    /// # Errors
    /// [`ModelError::TensorUnexpected`] with every tensor neither taken nor ignored.
    pub fn finish(self) -> Result<LoadReport, ModelError> {
        let left_over = self.left_over();
        if !left_over.is_empty() {
            return Err(ModelError::TensorUnexpected {
                path: self.checkpoint.path().into(),
                names: left_over,
            });
        }
        let mut report = LoadReport {
            source: self.checkpoint.source().to_string(),
            files: self.checkpoint.files().map(file_name).collect(),
            file_bytes: self.checkpoint.file_bytes(),
            tensors: self.taken.len(),
            parameters: 0,
            bytes: 0,
            dtypes: BTreeMap::new(),
            ignored: Vec::new(),
            root: self.checkpoint.root().into(),
            notes: Vec::new(),
            weight_files: self.checkpoint.weight_files().clone(),
            seconds: self
                .started
                .map_or(0.0, |started| started.elapsed().as_secs_f64()),
        };
        for name in &self.taken {
            let shape = self.checkpoint.shape(name).unwrap_or_default();
            report.parameters += shape.iter().product::<usize>() as u64;
            report.bytes += self.checkpoint.bytes_of(name).unwrap_or_default();
            if let Some(dtype) = self.checkpoint.dtype(name) {
                *report.dtypes.entry(dtype.to_string()).or_default() += 1;
            }
        }
        let ignored = self.ignored.into_iter();
        let ignored = ignored.map(|(name, reason)| IgnoredTensor { name, reason });
        let training = self.checkpoint.training_state().iter();
        let training = training.map(|name| IgnoredTensor {
            name: name.clone(),
            reason: "state of the training".into(),
        });
        report.ignored = ignored.chain(training).collect();
        #[cfg(feature = "tracing")]
        super::traced::loaded(&report);
        Ok(report)
    }

    fn check_shape(&self, name: &str, expected: &[usize]) -> Result<(), ModelError> {
        match self.checkpoint.shape(name) {
            Some(found) if found != expected => {
                Err(ModelError::shape(name, expected, found).at(self.checkpoint.path()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::SafetensorsExport;

    fn plan(names: &[&str]) -> Vec<(String, Vec<usize>)> {
        names
            .iter()
            .map(|name| (name.to_string(), vec![2, 3]))
            .collect()
    }

    fn checkpoint(names: &[&str]) -> (tempfile::TempDir, Checkpoint) {
        let dir = tempfile::tempdir().unwrap();
        SafetensorsExport::new(dir.path())
            .write(&plan(names), |name| Ok(vec![name.len() as f32; 6]))
            .unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        (dir, checkpoint)
    }

    #[test]
    fn all_that_is_missing_is_named() {
        let (_dir, checkpoint) = checkpoint(&["b"]);
        let reader = StrictReader::new(&checkpoint);
        match reader.check(&plan(&["a", "b", "c"]), &plan(&["d"])) {
            Err(ModelError::TensorMissing { names, .. }) => assert_eq!(names, ["a", "c"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_that_is_left_over_is_named() {
        let (_dir, checkpoint) = checkpoint(&["a", "b", "c", "attn.bias"]);
        let mut reader = StrictReader::new(&checkpoint);
        reader.take("b", &[2, 3]).unwrap();
        assert_eq!(
            reader.ignore("causal mask", |name| name.ends_with("attn.bias")),
            1
        );
        match reader.finish() {
            Err(ModelError::TensorUnexpected { names, .. }) => assert_eq!(names, ["a", "c"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_account_becomes_a_report() {
        let (_dir, checkpoint) = checkpoint(&["a", "bb", "attn.bias"]);
        let mut reader = StrictReader::new(&checkpoint);
        reader
            .check(&plan(&["a"]), &plan(&["bb", "absent"]))
            .unwrap();
        assert_eq!(reader.take("a", &[2, 3]).unwrap().values, [1.0; 6]);
        assert_eq!(reader.take("a", &[2, 3]).unwrap().values, [1.0; 6]);
        reader.ignore("all others", |_| true);
        assert_eq!(reader.take("bb", &[2, 3]).unwrap().values, [2.0; 6]);
        let report = reader.finish().unwrap();
        assert_eq!(
            (report.tensors, report.parameters, report.bytes),
            (2, 12, 48)
        );
        assert_eq!(report.dtypes["F32"], 2);
        assert_eq!(report.files, ["model.safetensors"]);
        assert_eq!(report.ignored.len(), 1);
        assert_eq!(report.ignored[0].name, "attn.bias");
    }

    #[test]
    fn a_wrong_shape_is_an_error_wherever_it_is_asked_for() {
        let (_dir, checkpoint) = checkpoint(&["a"]);
        let mut reader = StrictReader::new(&checkpoint);
        let wrong = [("a".to_string(), vec![3, 2])];
        assert!(matches!(
            reader.check(&wrong, &[]),
            Err(ModelError::TensorShape { .. })
        ));
        assert!(matches!(
            reader.check(&[], &wrong),
            Err(ModelError::TensorShape { .. })
        ));
        assert!(matches!(
            reader.take("a", &[3, 2]),
            Err(ModelError::TensorShape { .. })
        ));
        assert!(matches!(
            reader.take("z", &[3, 2]),
            Err(ModelError::TensorMissing { .. })
        ));
        assert_eq!(reader.left_over(), ["a"]);
    }
}
