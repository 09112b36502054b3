//! The page: its head, its styles and its sections.

use super::parts::section;
use super::{Named, costs, curves, numbers, summary, texts};
use crate::tools::markup::Text;

/// Styles for light and dark, wide and narrow.
const STYLE: &str = include_str!("style.css");

/// Returns the page.
pub(super) fn page(runs: &[Named]) -> String {
    let mut there = vec![
        ("results", "Results", summary::results(runs)),
        ("curves", "Curves", curves::curves(runs)),
        ("scores", "Before and after", summary::scores(runs)),
        ("confusion", "Confusion", texts::confusions(runs)),
        ("texts", "Texts", texts::texts(runs)),
        ("time", "Time", costs::times(runs)),
        ("memory", "Memory", costs::memory(runs)),
        ("settings", "Settings", summary::settings(runs)),
        ("numbers", "Numbers", numbers::numbers(runs)),
    ];
    there.retain(|(_, _, content)| !content.is_empty());
    let links = there.iter();
    let links: String = links
        .map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>"))
        .collect();
    let sections = there.iter();
    let sections: String = sections
        .map(|(id, title, content)| section(id, title, content))
        .collect();
    let title = match runs {
        [run] => run.name.clone(),
        runs => format!("{} runs", runs.len()),
    };
    let model = model(runs);
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style></head>\n<body>\n\
         <header><p class=\"kind\">fine-tuning report</p><h1>{title}</h1><p class=\"model\">{model}</p><nav>{links}</nav></header>\n\
         <main>\n{}</main>\n<footer>written by lora {version} from metrics.jsonl and recipe.toml</footer>\n</body></html>\n",
        sections,
        title = Text(title),
        model = Text(model),
    )
}

/// Returns the bases and the data of the runs.
fn model(runs: &[Named]) -> String {
    let mut shown: Vec<String> = Vec::new();
    for key in ["model", "data"] {
        for run in runs {
            let values = match run.files.recipe.get(key) {
                Some(toml::Value::Array(values)) => values.as_slice(),
                value => value.map_or(&[][..], std::slice::from_ref),
            };
            for path in values.iter().filter_map(toml::Value::as_str) {
                let parts: Vec<&str> = path.trim_end_matches('/').rsplit('/').take(2).collect();
                let name = parts.into_iter().rev().collect::<Vec<_>>().join("/");
                if !shown.contains(&name) {
                    shown.push(name);
                }
            }
        }
    }
    shown.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::runs::{
        After, Before, Confusion, Evaluation, RunFiles, Step, Text as Generated,
    };

    const HOSTILE: &str =
        "</td></script><script>alert(1)</script><img src=x onerror='alert(2)'>\" onload=\"x";

    fn run(name: &str) -> Named {
        let text = Generated {
            prompt: HOSTILE.into(),
            text: HOSTILE.into(),
            references: vec![HOSTILE.into(); 6],
        };
        let scores = [(HOSTILE.to_string(), Some(0.5)), ("bad".to_string(), None)];
        Named {
            name: name.into(),
            files: RunFiles {
                recipe: toml::Table::from_iter([
                    ("model".to_string(), HOSTILE.into()),
                    (HOSTILE.to_string(), name.into()),
                ]),
                steps: (1..=300)
                    .map(|step| Step {
                        step,
                        loss: Some(1.0 / step as f64),
                        ..Step::default()
                    })
                    .collect(),
                evaluations: vec![Evaluation {
                    step: 5,
                    eval: scores.clone().into(),
                    ..Evaluation::default()
                }],
                before: Some(Before {
                    before: scores.clone().into(),
                    metric: Some(HOSTILE.into()),
                    texts: vec![text.clone()],
                }),
                after: Some(After {
                    step: 300,
                    after: scores.into(),
                    stopped: Some(HOSTILE.into()),
                    confusion: Some(Confusion {
                        names: vec![HOSTILE.into()],
                        counts: vec![vec![3]],
                    }),
                    texts: vec![text],
                    ..After::default()
                }),
                ..RunFiles::default()
            },
        }
    }

    #[test]
    fn texts_of_files_put_no_element_on_the_page() {
        let page = page(&[run(HOSTILE), run("other")]);
        for element in [
            "<script",
            "<img",
            "onerror='",
            "\" onload=\"",
            "http:",
            "https:",
            "@import",
            "url(",
        ] {
            let count = page.matches(element).count();
            assert_eq!(count, 0, "{element}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"));
        // The first run's curve and the second's.
        assert!(page.contains("class=\"line c0\"") && page.contains("class=\"line c1\""));
    }

    #[test]
    fn a_matrix_of_a_file_that_is_none_is_left_out() {
        let mut broken = run("broken");
        let after = broken.files.after.as_mut().unwrap();
        after.confusion = Some(Confusion {
            names: vec!["a".into(), "b".into()],
            counts: vec![vec![1, 2], vec![3]],
        });
        assert!(!page(&[broken]).contains("id=\"confusion\""));
    }

    #[test]
    fn a_run_without_a_step_has_a_page() {
        let empty = Named {
            name: "empty".into(),
            files: RunFiles::default(),
        };
        let page = page(&[empty]);
        assert!(page.contains("<h1>empty</h1>") && page.contains("not ended"));
    }
}
