//! Runs side by side: results, settings, scores before and after.

use super::Named;
use super::parts::{count, label, number, rounded, run_name, table};
use crate::tools::markup::Text;
use crate::tools::runs::{RunFiles, Scores};
use std::collections::BTreeSet;

/// Returns the table of results.
pub(super) fn results(runs: &[Named]) -> String {
    let scores: Vec<Option<&str>> = runs.iter().map(|run| score(&run.files)).collect();
    let header = [
        "run",
        "steps",
        "trained parameters",
        "last loss",
        "score",
        "before",
        "after",
        "time",
    ];
    let rows = runs
        .iter()
        .zip(&scores)
        .enumerate()
        .map(|(index, (run, name))| {
            let files = &run.files;
            let after = files.after.as_ref();
            let last = files.steps.last();
            let steps = after.map(|a| a.step).or(last.map(|step| step.step));
            let of = |scores: Option<&Scores>| scores?.get((*name)?).copied().flatten();
            let (seconds, _) = seconds(files);
            let state = match after.map(|after| &after.stopped) {
                None => " <span class=\"badge\">not ended</span>",
                Some(Some(_)) => " <span class=\"badge\">stopped early</span>",
                Some(None) => "",
            };
            [
                run_name(index, run, state),
                count(steps),
                count(after.and_then(|after| after.trainable)),
                number(last.and_then(|step| step.loss), 4),
                format!("<td>{}</td>", Text(name.unwrap_or("–"))),
                number(of(before(files)), 3),
                number(of(self::after(files)), 3),
                format!("<td class=\"n\">{}</td>", duration(seconds)),
            ]
            .concat()
        });
    table("results", &header.map(String::from), rows)
}

/// Returns the name of the metric that the run names, or else of its first.
fn score(files: &RunFiles) -> Option<&str> {
    let scores = after(files)?;
    let named = match &files.after {
        Some(after) => after.metric.as_deref(),
        None => files.before.as_ref().and_then(|b| b.metric.as_deref()),
    };
    let named = named.filter(|name| scores.contains_key(*name));
    named.or(scores.keys().next().map(String::as_str))
}

/// Returns the metrics before the first step.
pub(super) fn before(files: &RunFiles) -> Option<&Scores> {
    files.before.as_ref().map(|before| &before.before)
}

/// Returns the metrics after the last step; those of the last evaluation for a run that has not ended.
pub(super) fn after(files: &RunFiles) -> Option<&Scores> {
    let last = files.evaluations.last().map(|last| &last.eval);
    let after = files.after.as_ref().map(|after| &after.after);
    after.filter(|after| !after.is_empty()).or(last)
}

/// Returns the seconds of a run by purpose, and the sum.
pub(super) fn seconds(files: &RunFiles) -> (f64, Vec<(&'static str, f64)>) {
    let phase = |name: &str| {
        let after = files.after.as_ref()?;
        after.phases.get(name).copied().flatten()
    };
    let last = files.steps.last().and_then(|step| step.seconds);
    let training = phase("training").or(last).unwrap_or(0.0);
    let (evaluation, checkpoints) = (
        files.evaluation_seconds(),
        phase("checkpoints").unwrap_or(0.0),
    );
    let parts = vec![
        ("start", phase("start").unwrap_or(0.0)),
        ("evaluation before", phase("before").unwrap_or(0.0)),
        ("steps", (training - evaluation - checkpoints).max(0.0)),
        ("evaluations", evaluation),
        ("checkpoints", checkpoints),
        ("evaluation after", phase("after").unwrap_or(0.0)),
    ];
    (parts.iter().map(|(_, seconds)| seconds).sum(), parts)
}

/// Formats seconds to be read.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{} min {:02} s", (s / 60.0) as u64, (s % 60.0) as u64),
        s => format!(
            "{} h {:02} min",
            (s / 3600.0) as u64,
            (s / 60.0 % 60.0) as u64
        ),
    }
}

/// Returns the table of all metrics before and after.
pub(super) fn scores(runs: &[Named]) -> String {
    let metrics = runs.iter().flat_map(|run| {
        let both = [before(&run.files), after(&run.files)];
        both.into_iter().flatten().flat_map(|scores| scores.keys())
    });
    let metrics: BTreeSet<&String> = metrics.collect();
    if metrics.is_empty() {
        return String::new();
    }
    let mut header = vec!["metric".to_string()];
    for (index, run) in runs.iter().enumerate() {
        let name = if runs.len() > 1 {
            label(index, &run.name)
        } else {
            String::new()
        };
        header.extend(["before", "after", "change"].map(|what| match what {
            "before" => format!("{name} {what}"),
            _ => what.to_string(),
        }));
    }
    let rows = metrics.into_iter().map(|metric| {
        let mut row = format!("<th scope=\"row\">{}</th>", Text(metric));
        for run in runs {
            let value = |scores: Option<&Scores>| scores?.get(metric).copied().flatten();
            let (before, after) = (value(before(&run.files)), value(after(&run.files)));
            row += &number(before, 4);
            row += &number(after, 4);
            row += &match (before, after) {
                (Some(before), Some(after)) => {
                    let change = after - before;
                    let sign = if change > 0.0 { "+" } else { "" };
                    format!("<td class=\"n change\">{sign}{}</td>", rounded(change, 4))
                }
                _ => number(None, 0),
            };
        }
        row
    });
    table("scores", &header, rows)
}

/// Returns the table of settings: those that differ first.
pub(super) fn settings(runs: &[Named]) -> String {
    let keys = runs.iter().flat_map(|run| run.files.recipe.keys());
    // The output is the name of the run.
    let keys: BTreeSet<&String> = keys.filter(|key| *key != "output").collect();
    if keys.is_empty() {
        return String::new();
    }
    let value = |run: &Named, key: &String| {
        let value = run.files.recipe.get(key);
        value.map(|value| match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    };
    let mut header = vec!["option".to_string()];
    header.extend(
        runs.iter()
            .enumerate()
            .map(|(index, run)| label(index, &run.name)),
    );
    let differs = |key: &&String| {
        let first = value(&runs[0], key);
        runs.iter().any(|run| value(run, key) != first)
    };
    let (different, same): (Vec<&String>, Vec<&String>) = keys.into_iter().partition(differs);
    let row = |key: &String, class: &str| {
        let mut row = format!("<th scope=\"row\" class=\"{class}\">{}</th>", Text(key));
        for run in runs {
            row += &match value(run, key) {
                Some(value) => format!("<td class=\"{class}\"><code>{}</code></td>", Text(value)),
                None => format!("<td class=\"{class} none\">default</td>"),
            };
        }
        row
    };
    let different = different.into_iter().map(|key| row(key, "differs"));
    let same = same.into_iter().map(|key| row(key, ""));
    table("settings", &header, different.chain(same))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::runs::{After, Before, Evaluation};
    use std::collections::BTreeMap;

    #[test]
    fn the_score_is_the_one_that_the_run_names() {
        let scores = |names: &[&str]| -> Scores {
            let names = names.iter();
            names.map(|name| (name.to_string(), Some(0.5))).collect()
        };
        let mut run = RunFiles {
            before: Some(Before {
                before: scores(&["bleu", "loss", "perplexity"]),
                metric: Some("loss".into()),
                ..Before::default()
            }),
            evaluations: vec![Evaluation {
                eval: scores(&["accuracy", "loss"]),
                ..Evaluation::default()
            }],
            ..RunFiles::default()
        };
        assert_eq!(score(&run), Some("loss"), "not ended");
        run.after = Some(After {
            after: scores(&["accuracy", "loss", "logical_form"]),
            metric: Some("logical_form".into()),
            ..After::default()
        });
        assert_eq!(score(&run), Some("logical_form"));
        run.after.as_mut().unwrap().metric = Some("<none>".into());
        assert_eq!(score(&run), Some("accuracy"));
        run.evaluations.clear();
        run.after.as_mut().unwrap().after = BTreeMap::new();
        assert_eq!(score(&run), None);
    }

    #[test]
    fn durations_are_read_at_a_glance() {
        assert_eq!(duration(1.234), "1.23 s");
        assert_eq!(duration(75.4), "75 s");
        assert_eq!(duration(3671.0), "61 min 11 s");
        assert_eq!(duration(7322.0), "2 h 02 min");
    }
}
