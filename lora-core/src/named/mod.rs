//! Several adapters on one base, by name: one of them is active, or another one for each example of a batch.
//!
//! A parameter of Burn takes one reparameterization, so all adapters on a parameter are in one set. A changed set is put on
//! the base anew, which copies handles and no weight. All sets share the number of the active adapter, so activating an
//! adapter is a store.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `adapters` | [`NamedAdapters`]: adding, removing, activating |
//! | `per_example` | [`BatchAdapters`]: an adapter for each example |
//! | `merged` | [`MergedAdapters`]: one adapter merged into the weights, and replaced by another |
//! | `tree` | all adapters in one directory tree, as PEFT writes it |
//! | `name` | valid names of adapters |
//! | `adapter` | an adapter of a set, with its name and values |

mod adapter;
mod adapters;
mod merged;
mod name;
mod per_example;
mod tree;

pub use crate::adapter::in_rows;
pub use adapters::NamedAdapters;
pub use merged::MergedAdapters;
pub use name::check_name;
pub use per_example::BatchAdapters;
pub use tree::{DEFAULT, adapters_in};
