//! Parameters of models: read from checkpoints or drawn at random, and collected for files.
//!
//! | concept | file |
//! | --- | --- |
//! | sources of parameters: random values, or none | `source.rs` |
//! | layers built from a source | `builder.rs` |
//! | checkpoint as a source: names, prefixes, fresh modules, left-over tensors | `reading.rs` |
//! | parameters of a module, for a file | `collect.rs` |

mod builder;
mod collect;
mod reading;
mod source;

pub(crate) use builder::{LayerBuilder, check_fits, embedding_of, linear_of, on_host, param};
pub use collect::Parameters;
pub(crate) use reading::{Expectation, Leftover, open_model, read_model};
pub(crate) use source::{Packed, Random, meta_init, plan};
pub use source::{ParamSpec, Weights};
