//! Comparison of fingerprints.

use super::base::BaseFingerprint;
use super::hash::hash_of_values;
use super::outline::BaseOutline;
use crate::error::BaseDifference;
use burn::module::Module;

impl BaseFingerprint {
    /// Returns the difference to another base; `None` if no difference is known.
    pub fn difference(&self, other: &Self) -> Option<BaseDifference> {
        let common = self.values.iter().filter_map(|(name, sample)| {
            let other = other.values.get(name)?;
            Some((name, sample, other))
        });
        if let Some((name, sample, other)) = common.clone().find(|(_, s, o)| s.shape != o.shape) {
            return Some(BaseDifference::Shapes {
                known: Some((name.clone(), sample.shape.clone(), other.shape.clone())),
            });
        }
        // The hashes cover the same tensors only if the same ones are left out.
        if self.without == other.without && self.shapes != other.shapes {
            return Some(BaseDifference::Shapes { known: None });
        }
        let differing = common.filter(|(_, s, o)| s.first != o.first);
        values(differing.map(|(name, ..)| name.clone()).collect())
    }

    /// Returns the difference to the base of a module. With `whole`, all tensors are compared; without it, other layers may
    /// differ, such as a new head.
    pub(crate) fn difference_to<M: Module>(
        &self,
        module: &M,
        outline: &BaseOutline,
        whole: bool,
    ) -> Option<BaseDifference> {
        let known = self.values.iter().filter_map(|(name, sample)| {
            let tensor = outline.tensor(name)?;
            Some((tensor, sample))
        });
        if let Some((tensor, sample)) = known.clone().find(|(t, s)| t.shape != s.shape) {
            let shapes = (
                tensor.name.clone(),
                sample.shape.clone(),
                tensor.shape.clone(),
            );
            return Some(BaseDifference::Shapes {
                known: Some(shapes),
            });
        }
        if whole && outline.shapes(&self.without) != self.shapes {
            return Some(BaseDifference::Shapes { known: None });
        }
        let exact = known.filter(|(tensor, _)| !tensor.rounded);
        let differing = exact.filter(|(tensor, sample)| {
            hash_of_values(module, &tensor.path).is_some_and(|hash| hash != sample.first)
        });
        values(differing.map(|(tensor, _)| tensor.name.clone()).collect())
    }
}

fn values(tensors: Vec<String>) -> Option<BaseDifference> {
    (!tensors.is_empty()).then_some(BaseDifference::Values { tensors })
}
