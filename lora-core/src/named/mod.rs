//! Several adapters on one base, by name: one of them acts, or another for each example of a batch.
//!
//! A parameter of Burn takes one reparameterization, so all that the adapters of a set do to a parameter lies in one,
//! and a changed set is put on the base anew: that copies handles and no weight. Which adapter acts is a number that
//! all of them look at, so activating one is a store.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `adapters` | [`NamedAdapters`]: adding, removing, activating |
//! | `per_example` | [`BatchAdapters`]: an adapter for each example |
//! | `merged` | [`MergedAdapters`]: one of them added to the weights, and another in its place |
//! | `tree` | all of them in one directory, as PEFT writes it |
//! | `name` | what an adapter may be called |
//! | `acting` | which one acts, here and now |
//! | `set`, `change`, `build` | what the adapters do to a parameter, and its values from files and back |
//! | `side_by_side`, `grouped` | the adapters of a mixed batch as one, and the arithmetic with them |

mod acting;
mod adapters;
mod build;
mod change;
mod grouped;
mod merged;
mod name;
mod per_example;
mod set;
mod side_by_side;
mod tree;

pub use acting::in_rows;
pub use adapters::NamedAdapters;
pub use merged::MergedAdapters;
pub use name::check_name;
pub use per_example::BatchAdapters;
pub use tree::{DEFAULT, adapters_in};

pub(crate) use grouped::{embedding, linear};
pub(crate) use set::{acting_adapter, is_on, packed_weight, without_update};
