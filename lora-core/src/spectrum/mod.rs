//! Singular directions of updates and weights, and what two sets of them share: section 7 of Hu et al. 2021.
//!
//! | file | contents |
//! | --- | --- |
//! | `directions` | [`Directions`], [`Singular`]: orthonormal directions, and their subspace similarity |
//! | `dense` | [`DenseWeight`]: a weight of the base, its norm, and its norm between directions |
//! | `svd` | decompositions |
//!
//! ```
//! use lora_core::spectrum::{DenseWeight, Directions};
//!
//! // Subspace similarity of the rows of two factors A, for the first i and j directions.
//! let first = Directions::of_rows(&[1.0, 0.0, 0.0, 0.0, 2.0, 0.0], [2, 3]).unwrap();
//! let second = Directions::of_rows(&[0.0, 3.0, 4.0], [1, 3]).unwrap();
//! let similarity = first.similarity(&second);
//! // The larger singular value of the first is that of its second row.
//! assert!((similarity[0][0] - 0.36).abs() < 1e-12 && (similarity[1][0] - 0.36).abs() < 1e-12);
//!
//! let weight = DenseWeight::from_fn(2, 3, |i, j| if i == j { 2.0 } else { 0.0 });
//! let norms = weight.norms_between(&Directions::of_rows(&[0.0, 1.0], [1, 2]).unwrap(), &second);
//! assert!((norms[0] - 1.2).abs() < 1e-12);
//! ```

mod dense;
mod directions;
mod svd;

pub use dense::DenseWeight;
pub use directions::{Directions, Singular};
pub(crate) use svd::{OVERSAMPLING, leading_svd, product_svd, svd};
