//! Difference between two bases.

use std::fmt;

/// Difference between a base and the one that an adapter was trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseDifference {
    /// The base has other tensors, or tensors of other shapes.
    Shapes {
        /// One differing tensor with its shape there and here, `[d_in, d_out]`, if known.
        known: Option<(String, Vec<usize>, Vec<usize>)>,
    },
    /// The base has the same tensors with other values.
    Values {
        /// Names of the compared tensors that differ.
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
