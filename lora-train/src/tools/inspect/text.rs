//! The report as text.

use super::report::{
    AdapterReport, DtypeReport, ModelReport, ModuleReport, Report, Unusual, WeightsReport,
};
use crate::tools::text::{joined, titled};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result};

/// Listed tensors of a file of weights; `--json` lists all.
const TENSORS_SHOWN: usize = 40;
/// Shown characters of a note in a file's metadata.
const NOTE_SHOWN: usize = 80;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Report::Adapter(report) => titled(f, &title(report), adapter(report)),
            Report::Adapters { path, adapters } => {
                let title = format!("{} adapters in {path}", adapters.len());
                titled(f, &title, adapters.iter().cloned())
            }
            Report::Model(report) => {
                let kind = report.model_type.as_deref().unwrap_or("unknown");
                let title = format!("{kind} model {}", report.weights.path);
                titled(f, &title, model(report))
            }
            Report::Weights(report) => {
                titled(f, &format!("weights {}", report.path), weights(report))
            }
        }
    }
}

fn title(report: &AdapterReport) -> String {
    let format = match report.format {
        "peft" => "PEFT",
        "mlx" => "mlx-lm",
        other => other,
    };
    let kind = report.peft_type.as_deref().filter(|kind| *kind != "LORA");
    let (kind, path) = (kind.unwrap_or("LoRA"), &report.path);
    format!("{format} {kind} adapter {path}")
}

fn adapter(report: &AdapterReport) -> Vec<String> {
    // The settings of low-rank factors; of another kind of adapter, whatever its configuration sets.
    let settings = report.settings.as_ref().unwrap_or(&report.config).iter();
    let settings = settings.filter(|(_, value)| is_set(value));
    // Numbers and words share a line; lists, tables and the base model have their own.
    let (short, long): (Vec<_>, Vec<_>) = settings.partition(|(key, value)| {
        !value.is_array() && !value.is_object() && key.as_str() != "base_model"
    });
    let setting = |(key, value): (&String, &Value)| match value.as_str() {
        Some(text) => format!("{key} {text}"),
        None => format!("{key} {value}"),
    };
    let short = joined(short.into_iter().map(setting).map(Some));
    let mut lines = Vec::new();
    lines.extend((!short.is_empty()).then_some(short));
    lines.extend(long.into_iter().map(setting));
    let others = match report.saved_parameters {
        0 => String::new(),
        count => format!(" and {count} in other tensors"),
    };
    let (modules, parameters) = (report.modules.len(), report.parameters);
    let (bytes, dtypes) = (report.file_bytes, dtypes(&report.dtypes));
    lines.push(format!(
        "{modules} modules, {parameters} parameters{others}, {bytes} bytes in {dtypes}"
    ));
    let modules = report.modules.iter();
    lines.extend(modules.map(|module| format!("{}: {}", module.module, facts(module))));
    for saved in &report.saved {
        let (name, shape, norm) = (&saved.name, &saved.shape, norm(saved.norm));
        lines.push(format!("{name} {shape:?}, fully trained{norm}"));
    }
    lines.extend(labels(report.labels.as_deref()));
    lines.extend(report.metadata.iter().map(note));
    if !report.adapters.is_empty() {
        let names = report.adapters.join(", ");
        lines.push(format!("further adapters in {names}"));
    }
    lines.extend(report.unusual.0.iter().map(unusual));
    lines
}

fn facts(module: &ModuleReport) -> String {
    let parts = module.parts.map(|parts| format!(" in {parts} parts"));
    let parts = parts.unwrap_or_default();
    let update = module.scale.map_or("B A", |_| "update");
    let norms = [
        ("A", module.norm_a),
        ("B", module.norm_b),
        (update, module.norm_update),
        ("magnitude", module.norm_magnitude),
        ("bias", module.norm_bias),
    ];
    let norms = joined(norms.map(|(what, norm)| Some(format!("{what} {:.4}", norm?))));
    joined([
        module.rank.map(|rank| format!("rank {rank}{parts}")),
        module.shape.map(|shape| format!("{shape:?}")),
        (module.kind == "embedding").then(|| "an embedding".into()),
        module.scale.map(|scale| format!("scale {scale}")),
        (!norms.is_empty()).then(|| format!("norms of {norms}")),
    ])
}

fn model(report: &ModelReport) -> Vec<String> {
    let sizes = [
        (report.layers, "layers"),
        (report.width, "wide"),
        (report.heads, "heads"),
        (report.vocabulary, "tokens"),
        (report.max_length, "positions"),
    ];
    let sizes = sizes.map(|(number, what)| Some(format!("{} {what}", number?)));
    let tied = report
        .tied_head
        .map(|tied| if tied { "tied" } else { "of its own" });
    let head = tied.map(|tied| format!("head {tied}"));
    let sizes = joined(sizes.into_iter().chain([head]));
    let mut lines = Vec::new();
    lines.extend((!sizes.is_empty()).then_some(sizes));
    lines.extend(labels(report.labels.as_deref()));
    lines.extend(totals(&report.weights));
    if !report.targets.is_empty() {
        lines.push(format!("targets: {}", report.targets.join(", ")));
    }
    lines.extend(report.weights.metadata.iter().map(note));
    lines.extend(report.weights.unusual.0.iter().map(unusual));
    lines
}

fn weights(report: &WeightsReport) -> Vec<String> {
    let mut lines = totals(report);
    for tensor in report.tensors.iter().take(TENSORS_SHOWN) {
        let (name, dtype, shape) = (&tensor.name, &tensor.dtype, &tensor.shape);
        lines.push(format!("{name} {dtype} {shape:?}{}", norm(tensor.norm)));
    }
    if report.tensors.len() > TENSORS_SHOWN {
        let more = report.tensors.len() - TENSORS_SHOWN;
        lines.push(format!("and {more} more (`--json` lists all)"));
    }
    lines.extend(report.metadata.iter().map(note));
    lines.extend(report.unusual.0.iter().map(unusual));
    lines
}

fn totals(report: &WeightsReport) -> Vec<String> {
    let Some(source) = &report.source else {
        return Vec::new();
    };
    let tensors = report.tensors.len();
    let values = if report.values_read {
        "values read"
    } else {
        "values not read (`--values` reads them all)"
    };
    let dtypes = dtypes(&report.dtypes);
    let (parameters, bytes) = (report.parameters, report.file_bytes);
    vec![
        format!("{source}: {tensors} tensors ({dtypes}), {parameters} parameters, {bytes} bytes"),
        values.into(),
    ]
}

fn norm(norm: Option<f64>) -> String {
    norm.map_or(String::new(), |norm| format!(", norm {norm:.4}"))
}

fn dtypes(dtypes: &BTreeMap<String, DtypeReport>) -> String {
    if dtypes.is_empty() {
        return "no tensors".into();
    }
    let counts = dtypes.iter();
    joined(counts.map(|(dtype, count)| Some(format!("{} {dtype}", count.tensors))))
}

fn labels(labels: Option<&[String]>) -> Option<String> {
    Some(match labels? {
        [score] if score == "score" => "head for a score".into(),
        names => format!("head for {}", names.join(", ")),
    })
}

fn note((key, note): (&String, &String)) -> String {
    let shown: String = note.chars().take(NOTE_SHOWN).collect();
    let cut = if shown.len() < note.len() { "…" } else { "" };
    format!("metadata {key}: {shown}{cut}")
}

fn unusual(unusual: &Unusual) -> String {
    format!("unusual: {}", unusual.message)
}

/// Returns true if a setting is not null, false or empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}
