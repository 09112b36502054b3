//! The report as text: a table with a line for each combination.

use super::report::{RunState, Spread, SweepReport};
use crate::progress::Escaped;
use std::collections::BTreeSet;
use std::fmt::{Display, Formatter, Result};

impl Display for SweepReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let groups = || self.groups.iter();
        let names: BTreeSet<&String> = groups().flat_map(|group| group.metrics.keys()).collect();
        let mut header = self.keys.clone();
        header.extend(["runs", "parameters"].map(String::from));
        header.extend(names.iter().map(ToString::to_string));
        header.push("seconds".into());
        let rows = groups().map(|group| {
            let mut row = group.values.clone();
            let failed = match group.failed {
                0 => String::new(),
                failed => format!(", {failed} failed"),
            };
            row.push(format!("{}{failed}", group.complete));
            row.push(
                group
                    .parameters
                    .map_or("-".into(), |count| count.to_string()),
            );
            row.extend(names.iter().map(|&name| {
                let spread = group.metrics.get(name).and_then(Option::as_ref);
                shown(spread, 4) + &part(spread, group.complete)
            }));
            row.push(shown(group.seconds.as_ref(), 1));
            row
        });
        let table: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
        let table: Vec<Vec<String>> = table
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| Escaped::line(cell).to_string())
                    .collect()
            })
            .collect();
        let columns = table.first().map_or(0, Vec::len);
        let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        for row in &table {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(column, (cell, &width))| {
                if column < self.keys.len() {
                    format!("{cell:width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        for run in self.runs.iter().filter(|run| run.state == RunState::Failed) {
            let error = run.error.as_deref().unwrap_or_default();
            writeln!(
                f,
                "failed: {}: {}",
                Escaped::line(&run.dir),
                Escaped::line(error)
            )?;
        }
        if !self.others.is_empty() {
            writeln!(
                f,
                "left as they are, of another sweep: {}",
                Escaped::line(&self.others.join(", "))
            )?;
        }
        if self.interrupted {
            writeln!(f, "interrupted: continue with --resume")?;
        }
        Ok(())
    }
}

/// Tells how many of the complete runs have the value, if not all do.
fn part(spread: Option<&Spread>, complete: usize) -> String {
    match spread.map_or(0, |spread| spread.count) {
        count if count == complete => String::new(),
        count => format!(" ({count} of {complete})"),
    }
}

/// Formats mean and deviation.
fn shown(spread: Option<&Spread>, decimals: usize) -> String {
    match spread {
        None => "-".into(),
        Some(Spread {
            mean,
            deviation: None,
            ..
        }) => format!("{mean:.decimals$}"),
        Some(Spread {
            mean,
            deviation: Some(d),
            ..
        }) => format!("{mean:.decimals$} ± {d:.decimals$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Group, RunResult};
    use super::*;

    #[test]
    fn columns_are_aligned_and_a_failure_is_told() {
        let group = |targets: &str, metrics: &[f64]| Group {
            values: vec!["4".into(), targets.into()],
            complete: metrics.len(),
            parameters: Some(1024),
            metrics: [("f1".to_string(), Spread::of(metrics))].into(),
            seconds: Spread::of(&[2.0]),
            ..Group::default()
        };
        let report = SweepReport {
            keys: vec!["rank".into(), "targets".into()],
            groups: vec![group("q", &[0.5, 0.7]), group("q,k,v", &[])],
            runs: vec![RunResult {
                dir: "out/runs/a".into(),
                state: RunState::Failed,
                error: Some("no\nmemory".into()),
                ..RunResult::default()
            }],
            ..SweepReport::default()
        };
        assert_eq!(
            report.to_string(),
            "rank  targets  runs  parameters               f1  seconds\n\
             4     q           2        1024  0.6000 ± 0.1414      2.0\n\
             4     q,k,v       0        1024                -      2.0\n\
             failed: out/runs/a: no\\nmemory\n"
        );
    }
    #[test]
    fn a_mean_of_some_runs_says_of_how_many() {
        let report = SweepReport {
            keys: vec!["lr".into()],
            groups: vec![Group {
                values: vec!["1".into()],
                complete: 3,
                metrics: [
                    ("f1".to_string(), Spread::of(&[0.5, 0.7])),
                    ("loss".to_string(), None),
                ]
                .into(),
                ..Group::default()
            }],
            others: vec!["seed-1_rank-8".into()],
            ..SweepReport::default()
        };
        let shown = report.to_string();
        assert!(
            shown.contains("0.6000 ± 0.1414 (2 of 3)  - (0 of 3)"),
            "{shown}"
        );
        assert!(
            shown.ends_with("left as they are, of another sweep: seed-1_rank-8\n"),
            "{shown}"
        );
    }
}
