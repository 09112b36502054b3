//! Layout of a module: names and shapes of its parameters, kinds of its layers, fused projections. No values.
//!
//! | file | contents |
//! | --- | --- |
//! | `architecture` | [`Architecture`]: names in Python, output layers, fused projections; names of heads |
//! | `for_architecture` | [`ForArchitecture`]: a configuration for such a model |
//! | `fused` | [`FusedProjection`], [`FusedLayout`] and the adapted [`Slices`] of one |
//! | `kind` | [`LayerKind`], [`AdapterPath`] |
//! | `names` | comparison of dotted paths |
//! | `walk` | walks over the parameters of a module, and their places |
//! | `parameters` | lists of the parameters of a module, and of the matrices that can be adapted |
//! | `adapted_module`, `saved_parameter`, `token_module` | [`AdaptedModule`], [`SavedParameter`], [`TokenModule`]: entries of an attach report |
//! | `id` | ids and hashes that are the same in every process |

mod adapted_module;
mod architecture;
mod for_architecture;
mod fused;
mod id;
mod kind;
mod names;
mod parameters;
mod saved_parameter;
mod token_module;
mod walk;

pub use adapted_module::AdaptedModule;
pub use architecture::{Architecture, CLASSIFICATION_HEADS};
pub use for_architecture::ForArchitecture;
pub use fused::{FusedLayout, FusedProjection, Slices};
pub use id::param_id;
pub(crate) use id::stable_hash;
pub use kind::{AdapterPath, LayerKind};
pub(crate) use names::{ends_in, is_inside, module_of};
pub(crate) use parameters::{Matrix, Parameter, Parameters, parameters};
pub use saved_parameter::SavedParameter;
pub use token_module::TokenModule;
pub(crate) use walk::{
    ADAPTER_COMPONENT, PACKED_COMPONENT, Place, SPLIT_COMPONENT, Visit, put, visit,
};
