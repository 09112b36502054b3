//! Helpers that the integration tests of the workspace share.
//!
//! | module | contents |
//! | --- | --- |
//! | [`compare`] | comparison of values within a tolerance |
//! | [`fill`] | parameters with values that are not zero |
//! | [`process`] | programs that must succeed or fail, and tests in a process of their own |
//! | [`random`] | numbers that are the same on every machine |
//! | [`tensors`] | tensors of a safetensors file, and their host values |

pub mod compare;
pub mod fill;
pub mod process;
pub mod random;
pub mod tensors;
