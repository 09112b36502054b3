//! Training runs over a grid of options and several seeds, with mean and deviation of their scores: tables 5, 6 and 18 of Hu et
//! al. 2021.
//!
//! | file | contents |
//! | --- | --- |
//! | `grid` | options that vary, and their combinations |
//! | `runs` | the runs, one after another, each in a directory of its own |
//! | `saved` | files of a sweep in its output directory |
//! | `report` | the report as structs and as JSON |
//! | `text` | the report as text |

mod grid;
mod report;
mod runs;
mod saved;
mod text;

pub(super) use saved::{RUNS, SavedSweep, others};

pub use report::{Group, RunResult, RunState, Spread, SweepReport};

use crate::TrainError;
use crate::options::RunOptions;
use crate::progress::Screen;
use burn_train::Interrupter;
use clap::Args;
use grid::Grid;

/// Options of `lora sweep`.
#[derive(Args, Clone, Debug, Default)]
pub struct SweepOptions {
    /// Recipe of the runs, and options of `lora train` that override it. The output directory gets the runs, in runs/, and their results, as sweep.json.
    #[command(flatten)]
    pub run: RunOptions,
    /// Option that varies, by its key in recipes, and its values: `rank=1,2,4,8`, or with `|` between values that have commas: `targets=query|query,value`. Each value is combined with those of the other grids.
    #[arg(long, value_name = "KEY=VALUES", help_heading = "Sweep")]
    pub grid: Vec<String>,
    /// Options that vary together: the first values of all, then the second, and so on, as for one budget of parameters: `--zip "rank=8|4|2" --zip "targets=query|query,value|query,key,value,dense"`.
    #[arg(long, value_name = "KEY=VALUES", help_heading = "Sweep")]
    pub zip: Vec<String>,
    /// Number of runs of each combination, with the recipe's seed and those after it [default: 1].
    #[arg(long, value_name = "N", help_heading = "Sweep")]
    pub seeds: Option<usize>,
    /// Print the results as a JSON object on the last line.
    #[arg(long, help_heading = "Sweep")]
    pub json: bool,
}

/// Trains all combinations. With `resume` in the options, complete runs are left as they are, and broken ones continue; complete runs
/// of other values and seeds stay in the results. A run that fails is reported, and the others go on.
///
/// # Errors
/// If an option is invalid or there is no evaluation data, which is checked before the first run, the output has other runs, or a file
/// cannot be written.
pub fn sweep(
    options: &SweepOptions,
    interrupter: &Interrupter,
    screen: &mut Screen,
) -> Result<SweepReport, TrainError> {
    let base = options.run.clone().resolve()?;
    let grid = Grid::new(&options.grid, &options.zip, options.seeds)?;
    let plans = grid.plans(&base)?;
    if plans.iter().any(|plan| !plan.options.evaluates()) {
        let message = "is missing: without it no run has a score, by which a sweep compares them";
        return Err(TrainError::config("eval_data", message));
    }
    runs::run_all(&base, &grid, plans, interrupter, screen)
}
