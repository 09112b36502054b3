//! Time and memory by purpose, as bars.

use super::Named;
use super::parts::{label, number, table};
use super::summary::{duration, seconds};
use crate::tools::markup::Text;
use std::fmt::Write;

/// Purposes of memory: keys of `metrics.jsonl`, and names.
const MEMORY: [(&str, &str); 4] = [
    ("frozen", "frozen weights"),
    ("trained", "trained weights"),
    ("gradients", "gradients"),
    ("optimizer", "moments of AdamW"),
];

/// Returns the bars and numbers of the time.
pub(super) fn times(runs: &[Named]) -> String {
    let all: Vec<(f64, Vec<(&str, f64)>)> = runs.iter().map(|run| seconds(&run.files)).collect();
    let longest = all.iter().map(|(sum, _)| *sum).fold(0.0, f64::max);
    bars(runs, &all, longest, "s", duration)
}

/// Returns the bars and numbers of the memory. What the process took beyond the weights and what training keeps for them belongs to
/// activations, data and the program.
pub(super) fn memory(runs: &[Named]) -> String {
    let all: Vec<(f64, Vec<(&str, f64)>)> = runs
        .iter()
        .map(|run| {
            let after = run.files.after.as_ref();
            let of =
                |key: &str| after.and_then(|after| after.memory_mib.get(key).copied().flatten());
            let mut parts: Vec<(&str, f64)> = MEMORY
                .iter()
                .map(|(key, name)| (*name, of(key).unwrap_or(0.0)))
                .collect();
            let counted: f64 = parts.iter().map(|(_, mib)| mib).sum();
            let peak = of("peak").unwrap_or(counted);
            parts.push(("activations, data and program", (peak - counted).max(0.0)));
            (peak.max(counted), parts)
        })
        .collect();
    let most = all.iter().map(|(sum, _)| *sum).fold(0.0, f64::max);
    bars(runs, &all, most, "MiB", |mib| format!("{mib:.1} MiB"))
}

fn bars(
    runs: &[Named],
    all: &[(f64, Vec<(&str, f64)>)],
    most: f64,
    unit: &str,
    shown: impl Fn(f64) -> String,
) -> String {
    if most <= 0.0 || !most.is_finite() {
        return String::new();
    }
    let names: Vec<&str> = all
        .first()
        .map(|(_, parts)| parts.iter().map(|(name, _)| *name).collect())
        .unwrap_or_default();
    let mut html = String::from("<div class=\"bars\">\n");
    for (index, (run, (sum, parts))) in runs.iter().zip(all).enumerate() {
        let name = if runs.len() > 1 {
            label(index, &run.name)
        } else {
            String::new()
        };
        let _ = write!(
            html,
            "<div class=\"bar-row\"><span class=\"bar-name\">{name}</span><span class=\"bar\">"
        );
        for (part, (what, size)) in parts.iter().enumerate() {
            let width = size / most * 100.0;
            let _ = write!(
                html,
                "<span class=\"p{part}\" style=\"width:{width:.3}%\" title=\"{}: {}\"></span>",
                Text(what),
                Text(shown(*size))
            );
        }
        let _ = writeln!(
            html,
            "</span><span class=\"bar-sum\">{}</span></div>",
            shown(*sum)
        );
    }
    html += "</div>\n<ul class=\"legend\">";
    for (part, name) in names.iter().enumerate() {
        let _ = write!(
            html,
            "<li><span class=\"key p{part}\"></span>{}</li>",
            Text(name)
        );
    }
    html += "</ul>\n";
    let mut header = vec![format!("{unit} by purpose")];
    header.extend(names.iter().map(ToString::to_string));
    header.push("sum".into());
    let rows = runs
        .iter()
        .zip(all)
        .enumerate()
        .map(|(index, (run, (sum, parts)))| {
            let mut row = super::parts::run_name(index, run);
            row.extend(parts.iter().map(|(_, size)| number(Some(*size), 2)));
            row + &number(Some(*sum), 2)
        });
    html + &format!(
        "<details><summary>numbers</summary>{}</details>\n",
        table("costs", &header, rows)
    )
}
