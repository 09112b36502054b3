//! Tables of steps and evaluations.

use super::Named;
use super::parts::{count, label, number, table};
use crate::tools::markup::Text;
use std::collections::BTreeSet;

/// Number of rows of a table; steps between them are left out.
const MOST_ROWS: usize = 100;

/// Returns the tables of all runs, closed.
pub(super) fn numbers(runs: &[Named]) -> String {
    let run = |(index, run): (usize, &Named)| {
        let summary = format!("<summary>{}</summary>", label(index, &run.name));
        let content = evaluations(run) + &steps(run);
        if content.is_empty() {
            return content;
        }
        format!("<details id=\"numbers-{index}\">{summary}\n{content}</details>\n")
    };
    runs.iter().enumerate().map(run).collect()
}

fn steps(run: &Named) -> String {
    let steps = &run.files.steps;
    if steps.is_empty() {
        return String::new();
    }
    let header = [
        "step",
        "epoch",
        "loss",
        "learning rate",
        "gradient norm",
        "seconds",
    ];
    let every = steps.len().div_ceil(MOST_ROWS);
    let last = steps.len() - 1;
    let chosen = (0..steps.len()).filter(|index| index.is_multiple_of(every) || *index == last);
    let rows = chosen.map(|index| {
        let step = &steps[index];
        [
            count(Some(step.step)),
            number(step.epoch, 2),
            number(step.loss, 4),
            number(step.lr, 6),
            number(step.grad_norm, 4),
            number(step.seconds, 1),
        ]
        .concat()
    });
    table("steps", &header.map(String::from), rows)
}

fn evaluations(run: &Named) -> String {
    let evaluations = &run.files.evaluations;
    if evaluations.is_empty() {
        return String::new();
    }
    let names: BTreeSet<&String> = evaluations.iter().flat_map(|e| e.eval.keys()).collect();
    let mut header = vec!["step".to_string()];
    header.extend(names.iter().map(|name| Text(name).to_string()));
    header.extend(["best".into(), "seconds".into()]);
    let every = evaluations.len().div_ceil(MOST_ROWS);
    let last = evaluations.len() - 1;
    let chosen = (0..evaluations.len()).filter(|i| i.is_multiple_of(every) || *i == last);
    let rows = chosen.map(|index| {
        let evaluation = &evaluations[index];
        let mut row = count(Some(evaluation.step));
        row.extend(
            names
                .iter()
                .map(|&name| number(evaluation.eval.get(name).copied().flatten(), 4)),
        );
        row += if evaluation.best {
            "<td>best so far</td>"
        } else {
            "<td></td>"
        };
        row + &number(evaluation.eval_seconds, 1)
    });
    table("evaluations", &header, rows)
}
