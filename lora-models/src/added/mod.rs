//! Trained modules beside the weights of a frozen model: virtual tokens and adapter layers.
//!
//! | concept | file |
//! | --- | --- |
//! | [`Added`]: what a model has of them | `module.rs` |
//! | [`AddedModel`]: models that take them; adding, loading and saving | `model.rs` |
//! | adapters of several directories as one | `directories.rs` |

mod directories;
mod model;
mod module;

pub(crate) use directories::{HeadTensors, load_beside, save_parts};
pub use directories::{has_own_part, load_modules, save_added};
pub use model::AddedModel;
pub use module::Added;
pub(crate) use module::LayerAdded;
