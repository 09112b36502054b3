//! Parameters of models: from checkpoints or from chance into modules, and out of modules into files.
//!
//! | concept | file |
//! | --- | --- |
//! | what a model asks for, and who answers | `source.rs` |
//! | layers made from it | `maker.rs` |
//! | a checkpoint as the source: names, prefixes, what is fresh and what is left over | `reading.rs` |
//! | a module as the source of a file | `collect.rs` |
//! | `[in, out]` here, `[out, in]` there | `transpose.rs` |

mod collect;
mod maker;
mod reading;
mod source;
mod transpose;

pub(crate) use collect::Parameters;
pub(crate) use maker::{Maker, dropout, on_host, param};
pub(crate) use reading::{Expectation, Leftover, read_model};
pub(crate) use source::{Random, Wanted, Weights, outline, plan};
