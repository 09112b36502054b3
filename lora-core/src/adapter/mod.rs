//! Adapters on a parameter: their parts, their forward pass, and which of them is active.
//!
//! A parameter of Burn has one reparameterization: a [`LowRankAdapter`], a [`LoraBias`], [`TokenRows`], or an [`AdapterSet`] with the adapters
//! of [`NamedAdapters`](crate::named::NamedAdapters). Layers call [`active`], so they do not depend on which it is.
//!
//! | file | contents |
//! | --- | --- |
//! | `active` | [`active`]: the adapters that a layer currently applies |
//! | `low_rank`, `forward`, `dora` | [`LowRankAdapter`]: the factors, the forward pass, the norms of DoRA |
//! | `bias` | [`LoraBias`]: the bias that an adapter adds |
//! | `token_rows` | [`TokenRows`]: rows of single tokens in the place of the base's |
//! | `switch` | [`AdapterSwitch`]: adapters off and on |
//! | `base_weight` | [`BaseWeight`]: the frozen weight, dense, packed or in parts |
//! | `set`, `entry` | [`AdapterSet`]: several adapters on one parameter |
//! | `scope` | selection of one adapter of a set, or of one for each example of a batch |
//! | `per_example`, `concatenated` | forward pass of a batch with an adapter for each example |
//! | `values` | values of adapters and their bases, read to the host |

mod active;
mod base_weight;
mod bias;
mod concatenated;
mod dora;
mod entry;
mod forward;
mod low_rank;
mod per_example;
mod scope;
mod set;
mod switch;
mod token_rows;
mod values;

pub(crate) use active::{Active, active, is_adapted};
pub(crate) use base_weight::{BaseWeight, packed_weight};
pub use bias::LoraBias;
pub(crate) use dora::norms;
pub(crate) use entry::AdapterEntry;
pub use low_rank::LowRankAdapter;
pub(crate) use low_rank::StartingFactors;
#[cfg(test)]
pub(crate) use low_rank::expand;
pub use scope::in_rows;
pub(crate) use scope::{ActiveAdapter, BatchRows, Key, Selection};
pub(crate) use set::AdapterSet;
pub use switch::AdapterSwitch;
pub use token_rows::TokenRows;
pub use values::base_value;
pub(crate) use values::{attached_adapters, base_head};
