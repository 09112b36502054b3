//! Generated texts beside their references, and confusion matrices.

use super::Named;
use super::parts::label;
use crate::jobs::record::MOST_CLASSES;
use crate::tools::markup::Text;
use crate::tools::runs::{Confusion, Text as Generated};
use std::fmt::Write;

/// Number of prompts that are shown.
const MOST_PROMPTS: usize = 24;
/// Number of prompts that are shown at once.
const OPEN: usize = 6;
/// Number of references of a prompt that are shown.
const MOST_REFERENCES: usize = 4;

/// Returns the texts of all runs by prompt.
pub(super) fn texts(runs: &[Named]) -> String {
    let generated = |run: &Named| run.files.after.as_ref().map(|after| after.texts.clone());
    let mut prompts: Vec<Generated> = Vec::new();
    let all = runs.iter().filter_map(generated).flatten();
    for text in all {
        if prompts.len() < MOST_PROMPTS && !prompts.iter().any(|p| p.prompt == text.prompt) {
            prompts.push(text);
        }
    }
    let mut html = String::new();
    for (index, prompt) in prompts.iter().enumerate() {
        if index == OPEN {
            html += "<details><summary>more texts</summary>\n";
        }
        html += &card(runs, prompt);
    }
    if prompts.len() > OPEN {
        html += "</details>\n";
    }
    html
}

fn card(runs: &[Named], prompt: &Generated) -> String {
    let mut card = format!(
        "<article class=\"text\"><p class=\"prompt\">{}</p><dl>",
        Text(prompt.prompt.trim())
    );
    let find = |texts: &[Generated]| {
        let found = texts.iter().find(|text| text.prompt == prompt.prompt);
        found.map(|found| found.text.clone())
    };
    for (index, run) in runs.iter().enumerate() {
        let before = run
            .files
            .before
            .as_ref()
            .and_then(|before| find(&before.texts));
        let after = run
            .files
            .after
            .as_ref()
            .and_then(|after| find(&after.texts));
        for (when, text) in [("before", before), ("after", after)] {
            if let Some(text) = text {
                let name = if runs.len() > 1 {
                    label(index, &run.name)
                } else {
                    String::new()
                };
                let _ = write!(
                    card,
                    "<div class=\"{when}\"><dt>{name} {when}</dt><dd>{}</dd></div>",
                    Text(text.trim())
                );
            }
        }
    }
    for reference in prompt.references.iter().take(MOST_REFERENCES) {
        let _ = write!(
            card,
            "<div class=\"reference\"><dt>reference</dt><dd>{}</dd></div>",
            Text(reference.trim())
        );
    }
    if prompt.references.len() > MOST_REFERENCES {
        let more = prompt.references.len() - MOST_REFERENCES;
        let _ = write!(
            card,
            "<div class=\"reference\"><dd>and {more} more references</dd></div>"
        );
    }
    card + "</dl></article>\n"
}

/// Returns the confusion matrices of all runs.
pub(super) fn confusions(runs: &[Named]) -> String {
    let mut html = String::new();
    for (index, run) in runs.iter().enumerate() {
        let matrix = run
            .files
            .after
            .as_ref()
            .and_then(|after| after.confusion.as_ref());
        if let Some(matrix) = matrix.filter(|matrix| is_whole(matrix)) {
            let name = if runs.len() > 1 {
                label(index, &run.name)
            } else {
                String::new()
            };
            html += &confusion(&name, matrix);
        }
    }
    if html.is_empty() {
        return html;
    }
    format!(
        "<p class=\"note\">rows: labels; columns: predictions; colours: share of the row</p><div class=\"matrices\">{html}</div>\n"
    )
}

/// Returns true if the matrix of a file is one, and has room.
fn is_whole(matrix: &Confusion) -> bool {
    let classes = matrix.names.len();
    let fits = (1..=MOST_CLASSES).contains(&classes) && matrix.counts.len() == classes;
    fits && matrix.counts.iter().all(|row| row.len() == classes)
}

fn confusion(name: &str, matrix: &Confusion) -> String {
    let mut table = format!(
        "<div class=\"scroll\"><table class=\"confusion\"><caption>{name}</caption><tr><td></td>"
    );
    for name in &matrix.names {
        let _ = write!(table, "<th scope=\"col\">{}</th>", Text(name));
    }
    for (label, (name, row)) in matrix.names.iter().zip(&matrix.counts).enumerate() {
        let _ = write!(table, "</tr>\n<tr><th scope=\"row\">{}</th>", Text(name));
        let all: f64 = row.iter().map(|&count| count as f64).sum();
        for (prediction, &count) in row.iter().enumerate() {
            let share = (count as f64 / all.max(1.0) * 100.0).round();
            let kind = if label == prediction {
                "right"
            } else {
                "wrong"
            };
            let _ = write!(
                table,
                "<td class=\"n {kind}\" style=\"--share:{share}%\" data-value=\"{count}\">{count}</td>"
            );
        }
    }
    table + "</tr></table></div>\n"
}
