//! How two bases differ, as far as their fingerprints tell.

use super::{BaseFingerprint, BaseOutline, hash_of_values};
use burn::module::Module;
use std::fmt;

/// How a base differs from the one that an adapter was trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseDifference {
    /// It has other tensors, or tensors of other shapes.
    Shapes {
        /// One of them with its shape there and here, `[d_in, d_out]`, where that is known.
        known: Option<(String, Vec<usize>, Vec<usize>)>,
    },
    /// Its tensors are the same, with other values.
    Values {
        /// Tensors that were compared and differ.
        tensors: Vec<String>,
    },
}

impl fmt::Display for BaseDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shapes { known: None } => {
                f.write_str("trained on a base with other tensors or shapes")
            }
            Self::Shapes {
                known: Some((name, there, here)),
            } => write!(
                f,
                "trained on a base with other shapes: `{name}` is {there:?} there and {here:?} here"
            ),
            Self::Values { tensors } => {
                let names: Vec<String> = tensors.iter().map(|name| format!("`{name}`")).collect();
                write!(
                    f,
                    "trained on a base with other values of {}: another model, or the same one rounded to another type",
                    names.join(", ")
                )
            }
        }
    }
}

impl BaseFingerprint {
    /// How another base differs; `None` where nothing is known to.
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
        // Hashes of all tensors are of the same ones only where the same are left out.
        if self.without == other.without && self.shapes != other.shapes {
            return Some(BaseDifference::Shapes { known: None });
        }
        let differing = common.filter(|(_, s, o)| s.first != o.first);
        values(differing.map(|(name, ..)| name.clone()).collect())
    }

    /// How the base of a module differs. `whole` says that all its tensors are to be the same ones; without it the
    /// layers around may be others, as where a new head is put on.
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
        let exact = known.filter(|(tensor, _)| !tensor.quantized);
        let differing = exact.filter(|(tensor, sample)| {
            hash_of_values(module, &tensor.path).is_some_and(|hash| hash != sample.first)
        });
        values(differing.map(|(tensor, _)| tensor.name.clone()).collect())
    }
}

fn values(tensors: Vec<String>) -> Option<BaseDifference> {
    match tensors.is_empty() {
        true => None,
        false => Some(BaseDifference::Values { tensors }),
    }
}
