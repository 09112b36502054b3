//! Curves over steps.

use super::Named;
use super::parts::label;
use crate::tools::markup::Text;
use crate::tools::runs::Step;
use crate::tools::svg::{Chart, Series};
use std::collections::BTreeSet;

/// Value of a step.
type Value = fn(&Step) -> Option<f64>;

const OF_STEPS: [(&str, Value); 3] = [
    ("training loss", |step| step.loss),
    ("learning rate", |step| step.lr),
    ("gradient norm", |step| step.grad_norm),
];

/// Returns the charts of all runs.
pub(super) fn curves(runs: &[Named]) -> String {
    let mut charts = String::new();
    for (index, (title, value)) in OF_STEPS.into_iter().enumerate() {
        let series: Vec<Series> = all(runs, |run| {
            let steps = run.files.steps.iter();
            steps
                .filter_map(|step| Some((step.step as f64, value(step)?)))
                .collect()
        });
        // The scores follow the loss.
        charts += &figure(title, &series);
        if index == 0 {
            charts += &evaluations(runs);
        }
    }
    if charts.is_empty() {
        return charts;
    }
    let legend = if runs.len() > 1 {
        let labels = runs
            .iter()
            .enumerate()
            .map(|(index, run)| format!("<li>{}</li>", label(index, &run.name)));
        format!("<ul class=\"legend\">{}</ul>\n", labels.collect::<String>())
    } else {
        String::new()
    };
    format!("{legend}<div class=\"charts\">\n{charts}</div>\n")
}

/// Returns the charts of the scores, with those before the first step.
fn evaluations(runs: &[Named]) -> String {
    let evaluated = runs.iter().filter(|run| !run.files.evaluations.is_empty());
    let metrics = evaluated.flat_map(|run| &run.files.evaluations);
    let metrics: BTreeSet<&String> = metrics
        .flat_map(|evaluation| evaluation.eval.keys())
        .collect();
    let chart = |metric: &String| {
        let series = all(runs, |run| {
            let before = run
                .files
                .before
                .iter()
                .map(|before| (0.0, before.before.get(metric)));
            let evaluations = run.files.evaluations.iter();
            let evaluations = evaluations.map(|e| (e.step as f64, e.eval.get(metric)));
            let points = before.chain(evaluations);
            points
                .filter_map(|(step, value)| Some((step, (*value?)?)))
                .collect()
        });
        figure(&format!("evaluation: {metric}"), &series)
    };
    metrics.into_iter().map(chart).collect()
}

fn all(runs: &[Named], points: impl Fn(&Named) -> Vec<(f64, f64)>) -> Vec<Series> {
    let series = runs.iter().enumerate().map(|(colour, run)| Series {
        name: run.name.clone(),
        colour,
        points: points(run),
    });
    series.filter(|series| !series.points.is_empty()).collect()
}

fn figure(title: &str, series: &[Series]) -> String {
    if series.is_empty() {
        return String::new();
    }
    let svg = Chart { title, series }.svg();
    format!(
        "<figure><figcaption>{}</figcaption>{svg}</figure>\n",
        Text(title)
    )
}
