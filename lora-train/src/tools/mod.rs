//! Tools of the program `lora`, as functions: describe, compare and rewrite files, measure and estimate work.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `inspect`, `diff` | the contents of adapters and checkpoints, and the differences between two of them |
//! | `combine`, `convert` | adapter files made of others |
//! | `text` | lines and tables of their reports |
//! | `bench`, `estimate` | time and memory of work on this machine, measured, and estimated before it is done |

pub mod bench;
mod combine;
mod convert;
pub mod diff;
pub mod estimate;
pub mod inspect;
mod text;

pub use combine::{CombineArgs, combine};
pub use convert::{ConvertOptions, FormatName, UnsaidOptions, convert};
pub use diff::{DiffOptions, diff};
pub use estimate::{Forecast, PlanOptions, estimate};
pub use inspect::{InspectOptions, inspect};
