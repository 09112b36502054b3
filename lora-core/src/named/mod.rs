//! Several named adapters on one base: one is active, or each example of a batch has its own.
//!
//! A parameter of Burn has one reparameterization, so all adapters on a parameter are in one set. Adding or removing an adapter
//! replaces the sets, which copies handles but no weights. All sets share the number of the active adapter, so activating an
//! adapter is one store to memory.
//!
//! | file | contents |
//! | --- | --- |
//! | `adapters` | [`NamedAdapters`]: adding, removing, activating |
//! | `per_example` | [`BatchAdapters`]: an adapter for each example |
//! | `merged` | [`MergedAdapters`]: the base with one adapter merged, which can be switched to another |
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
