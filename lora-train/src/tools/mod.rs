//! Tools of the program `lora`, as functions: describe, compare and rewrite files, measure and estimate work.
//!
//! | file | contents |
//! | --- | --- |
//! | `inspect`, `diff` | the contents of adapters and checkpoints, and the differences between two of them |
//! | `analyze` | subspaces of updates, and updates against the weights of the base |
//! | `combine`, `convert` | adapters combined into one; conversion between formats |
//! | `bench`, `estimate` | measured time and memory of training and inference; estimates before a run |
//! | `doctor` | examination of a device |
//! | `environment`, `build` | facts about the program and this machine |
//! | `cache` | kernels that GPU backends keep |
//! | `sweep`, `report` | runs over a grid of options; runs as an HTML page |
//! | `runs` | files of a training run |
//! | `svg`, `markup` | figures; text in HTML and SVG |
//! | `names` | names of files |
//! | `push` | upload of an adapter to the Hugging Face Hub |
//! | `text` | text of reports |

pub mod analyze;
pub mod bench;
mod build;
mod cache;
mod combine;
mod convert;
pub mod diff;
pub mod doctor;
mod environment;
pub mod estimate;
pub mod inspect;
mod markup;
mod names;
mod push;
pub mod report;
mod runs;
mod svg;
pub mod sweep;
mod text;

pub use analyze::{AnalyzeOptions, analyze};
pub use build::Build;
pub use cache::{CacheOptions, KernelCache, cache};
pub use combine::{CombineArgs, combine};
pub use convert::{ConvertOptions, ForeignOptions, FormatName, convert};
pub use diff::{DiffOptions, diff};
pub use environment::{Environment, EnvironmentOptions, environment};
pub use estimate::{Forecast, PlanOptions, estimate};
pub use inspect::{InspectOptions, inspect};
pub use push::{PushOptions, push};
pub use report::{ReportOptions, report};
pub use sweep::{SweepOptions, sweep};
