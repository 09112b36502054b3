//! The report of `lora sweep`, which `sweep.json` holds too: keys keep their names and meanings, new ones may come. A number that does
//! not exist, such as the deviation of one value, is `null`.

use serde::Serialize;
use std::collections::BTreeMap;

/// Results of a sweep.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SweepReport {
    /// Output directory.
    pub output: String,
    /// Keys of the options that vary.
    pub keys: Vec<String>,
    /// Combinations, in the order of the command line.
    pub groups: Vec<Group>,
    /// Runs, in their order; in a resumed sweep followed by complete runs of earlier passes that this grid does not have.
    pub runs: Vec<RunResult>,
    /// Names in the folder of runs that belong to another sweep; they are left as they are.
    pub others: Vec<String>,
    /// True if the sweep was interrupted.
    pub interrupted: bool,
}

/// Runs of one combination, with different seeds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    /// Values of the options that vary, in the order of the keys.
    pub values: Vec<String>,
    /// Number of complete runs.
    pub complete: usize,
    /// Number of failed runs.
    pub failed: usize,
    /// Number of trainable parameters.
    pub parameters: Option<usize>,
    /// Metrics after training, by name; `null` if no run has a finite value.
    pub metrics: BTreeMap<String, Option<Spread>>,
    /// Seconds of training.
    pub seconds: Option<Spread>,
}

/// Mean and deviation of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation, with one degree of freedom less than there are values; `null` for one value.
    pub deviation: Option<f64>,
    /// Number of values: fewer than there are complete runs if some of them are not finite, as after a diverged training.
    pub count: usize,
}

/// State of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Not started yet, or interrupted.
    #[default]
    Open,
    /// Complete.
    Complete,
    /// Failed.
    Failed,
}

/// Run of a sweep.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunResult {
    /// Output directory.
    pub dir: String,
    /// Values of the options that vary, in the order of the keys.
    pub values: Vec<String>,
    /// Seed.
    pub seed: u64,
    /// State.
    pub state: RunState,
    /// Error of a failed run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Metrics after training, by name; `null` if not finite.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Number of trainable parameters.
    pub parameters: Option<usize>,
    /// Seconds of training, evaluations among the steps included.
    pub seconds: Option<f64>,
}

impl Spread {
    /// Returns mean and deviation; `None` without a value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares = values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>();
        (count > 0).then(|| Self {
            mean,
            deviation: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()),
            count,
        })
    }
}

impl SweepReport {
    /// Returns true if all runs are complete.
    pub fn is_complete(&self) -> bool {
        self.runs.iter().all(|run| run.state == RunState::Complete)
    }

    /// Computes the groups: runs with equal values, in the order of their first runs.
    pub(super) fn regroup(&mut self) {
        let mut groups: Vec<Vec<&RunResult>> = Vec::new();
        let mut places = BTreeMap::new();
        for run in &self.runs {
            let place = *places.entry(&run.values).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Vec::new());
            }
            groups[place].push(run);
        }
        self.groups = groups.iter().map(|runs| group(runs)).collect();
    }
}

fn group(runs: &[&RunResult]) -> Group {
    let complete = || runs.iter().filter(|run| run.state == RunState::Complete);
    let names = complete().flat_map(|run| run.metrics.keys());
    let metrics = names.map(|name| {
        let values: Vec<f64> = complete()
            .filter_map(|run| run.metrics.get(name).copied().flatten())
            .collect();
        (name.clone(), Spread::of(&values))
    });
    let seconds: Vec<f64> = complete().filter_map(|run| run.seconds).collect();
    Group {
        values: runs
            .first()
            .map(|run| run.values.clone())
            .unwrap_or_default(),
        complete: complete().count(),
        failed: runs
            .iter()
            .filter(|run| run.state == RunState::Failed)
            .count(),
        parameters: complete().find_map(|run| run.parameters),
        metrics: metrics.collect(),
        seconds: Spread::of(&seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_that_of_a_sample() {
        // numpy.std([2, 4, 9], ddof=1)
        let spread = Spread::of(&[2.0, 4.0, 9.0]).unwrap();
        assert_eq!(spread.mean, 5.0);
        assert!((spread.deviation.unwrap() - 3.605551275463989).abs() < 1e-12);
        assert_eq!(Spread::of(&[3.0]).unwrap().deviation, None);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn failed_and_open_runs_do_not_count() {
        let run = |state, score| RunResult {
            state,
            metrics: [("f1".to_string(), Some(score))].into(),
            ..RunResult::default()
        };
        let mut report = SweepReport {
            runs: vec![
                run(RunState::Complete, 0.5),
                run(RunState::Failed, 0.0),
                run(RunState::Complete, 0.7),
                run(RunState::Open, 0.0),
            ],
            ..SweepReport::default()
        };
        report.regroup();
        let [group] = &report.groups[..] else {
            panic!()
        };
        assert_eq!((group.complete, group.failed), (2, 1));
        assert!((group.metrics["f1"].unwrap().mean - 0.6).abs() < 1e-12);
        assert!(!report.is_complete());
    }
    #[test]
    fn a_score_that_is_not_finite_is_left_out_and_counted() {
        let run = |values: &str, scores: [Option<f64>; 2]| RunResult {
            state: RunState::Complete,
            values: vec![values.into()],
            metrics: [("f1", scores[0]), ("loss", scores[1])]
                .map(|(name, score)| (name.to_string(), score))
                .into(),
            ..RunResult::default()
        };
        let mut report = SweepReport {
            runs: vec![
                run("a", [Some(0.5), None]),
                run("b", [Some(0.1), Some(2.0)]),
                run("a", [Some(0.7), None]),
                // From an earlier pass.
                run("a", [None, None]),
            ],
            ..SweepReport::default()
        };
        report.regroup();
        let [a, b] = &report.groups[..] else { panic!() };
        let f1 = a.metrics["f1"].unwrap();
        assert_eq!((a.complete, f1.count), (3, 2));
        assert!((f1.mean - 0.6).abs() < 1e-12);
        assert_eq!(a.metrics["loss"], None);
        assert_eq!(b.metrics["loss"].unwrap().mean, 2.0);
    }
}
