//! Time and memory by purpose, as bars.

use super::Named;
use super::parts::{label, number, table};
use super::summary::{duration, seconds};
use crate::tools::markup::Text;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Purposes of memory: keys of `metrics.jsonl`, and names.
const MEMORY: [(&str, &str); 4] = [
    ("frozen", "frozen weights"),
    ("trained", "trained weights"),
    ("gradients", "gradients (estimated)"),
    ("optimizer", "moments of AdamW (estimated)"),
];

/// Returns the bars and numbers of the time.
pub(super) fn times(runs: &[Named]) -> String {
    let all: Vec<(f64, Vec<(&str, f64)>)> = runs.iter().map(|run| seconds(&run.files)).collect();
    let longest = all.iter().map(|(sum, _)| *sum).fold(0.0, f64::max);
    let bars = bars(runs, &all, longest, "s", duration);
    noted(
        "steps, evaluations and checkpoints: of all sessions of a run; the others: of the last session",
        bars,
    )
}

/// Returns the bars and numbers of the memory. On a CPU, what the process took beyond the weights and what training keeps for them
/// belongs to activations, data and the program. On a GPU it tells nothing: the weights are elsewhere.
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
            let on_host = after.is_some_and(|after| after.on_host);
            let peak = of("peak").filter(|_| on_host).unwrap_or(counted);
            parts.push(("activations, data and program", (peak - counted).max(0.0)));
            (peak.max(counted), parts)
        })
        .collect();
    let most = all.iter().map(|(sum, _)| *sum).fold(0.0, f64::max);
    let bars = bars(runs, &all, most, "MiB", |mib| format!("{mib:.1} MiB"));
    let after = runs.iter().filter_map(|run| run.files.after.as_ref());
    let elsewhere = after.filter(|after| !after.on_host);
    let devices: BTreeSet<&str> = elsewhere
        .filter_map(|after| after.device.as_deref())
        .collect();
    if devices.is_empty() {
        return bars;
    }
    let devices: Vec<&str> = devices.into_iter().collect();
    let note = format!(
        "without activations on {}: they are not measured",
        devices.join(", ")
    );
    noted(&note, bars)
}

/// Puts a note above the bars, if there are any.
fn noted(note: &str, bars: String) -> String {
    if bars.is_empty() {
        return bars;
    }
    format!("<p class=\"note\">{}</p>{bars}", Text(note))
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
            let mut row = super::parts::run_name(index, run, "");
            row.extend(parts.iter().map(|(_, size)| number(Some(*size), 2)));
            row + &number(Some(*sum), 2)
        });
    html + &format!(
        "<details><summary>numbers</summary>{}</details>\n",
        table("costs", &header, rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::runs::{After, RunFiles};

    #[test]
    fn the_peak_of_the_host_tells_nothing_of_a_gpu() {
        let run = |on_host, peak| Named {
            name: "run".into(),
            files: RunFiles {
                after: Some(After {
                    on_host,
                    device: Some("H200 <0>".into()),
                    memory_mib: [
                        ("frozen", 400.0),
                        ("trained", 1.0),
                        ("gradients", 1.0),
                        ("optimizer", 2.0),
                        ("peak", peak),
                    ]
                    .map(|(key, mib)| (key.to_string(), Some(mib)))
                    .into(),
                    ..After::default()
                }),
                ..RunFiles::default()
            },
        };
        let sums = |run| {
            let html = memory(&[run]);
            let row = html.split("<tbody>").nth(1).unwrap().to_string();
            let values = row.split("data-value=\"").skip(1);
            let values = values.map(|value| value.split('"').next().unwrap().parse().unwrap());
            (values.collect::<Vec<f64>>(), html)
        };
        let (host, html) = sums(run(true, 1000.0));
        assert_eq!(host, [400.0, 1.0, 1.0, 2.0, 596.0, 1000.0]);
        assert!(html.contains("gradients (estimated)") && !html.contains("H200"));
        // Programs on a GPU take more memory of the host than the weights that are not there.
        let (gpu, html) = sums(run(false, 1000.0));
        assert_eq!(gpu, [400.0, 1.0, 1.0, 2.0, 0.0, 404.0]);
        assert!(
            html.contains("without activations on H200 &lt;0&gt;"),
            "{html}"
        );
    }
}
