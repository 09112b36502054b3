//! The report for people.

use super::report::{
    AdapterReport, DtypeReport, ModelReport, ModuleReport, Report, Unusual, WeightsReport,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result};

/// Listed tensors of a file of weights; `--json` lists all.
const TENSORS_SHOWN: usize = 40;
/// Shown characters of a note in a file's metadata.
const NOTE_SHOWN: usize = 80;

/// Lines of the settings that say anything, `{}` for the value.
const SETTINGS: [(&str, &str); 6] = [
    ("targets", "targets {}"),
    ("exclude", "without {}"),
    ("layers", "in layers {}"),
    ("dora", "DoRA: magnitudes train apart"),
    ("lora_bias", "`B` has a bias"),
    ("bias", "biases of the base train: {}"),
];

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Report::Adapter(report) => adapter(f, report),
            Report::Adapters(tree) => {
                writeln!(f, "{} adapters in {}", tree.adapters.len(), tree.path)?;
                let mut names = tree.adapters.iter();
                names.try_for_each(|name| writeln!(f, "  {name}"))
            }
            Report::Model(report) => model(f, report),
            Report::Weights(report) => weights(f, report),
        }
    }
}

fn adapter(f: &mut Formatter<'_>, report: &AdapterReport) -> Result {
    let kind = report.peft_type.as_deref().unwrap_or("LORA");
    let format = match (report.format, kind) {
        ("peft", "LORA") => "PEFT LoRA".to_string(),
        ("peft", other) => format!("PEFT {other}"),
        ("mlx", _) => "mlx-lm LoRA".to_string(),
        (other, _) => format!("{other} LoRA"),
    };
    writeln!(f, "{format} adapter {}", report.path)?;
    if let Some(settings) = &report.settings {
        self::settings(f, settings)?;
    } else {
        // Another kind of adapter: whatever its configuration sets.
        for (key, value) in report.config.iter().filter(|(_, value)| is_set(value)) {
            writeln!(f, "  {key} {value}")?;
        }
    }
    let others = match report.saved_parameters {
        0 => String::new(),
        count => format!(" and {count} in other tensors"),
    };
    writeln!(
        f,
        "  {} modules, {} parameters{others}, {} bytes in {}",
        report.modules.len(),
        report.parameters,
        report.file_bytes,
        dtypes(&report.dtypes)
    )?;
    for module in &report.modules {
        writeln!(f, "  {}: {}", module.module, facts(module).join(", "))?;
    }
    for saved in &report.saved {
        let norm = norm(saved.norm);
        writeln!(f, "  {} {:?}, trained whole{norm}", saved.name, saved.shape)?;
    }
    labels(f, report.labels.as_deref())?;
    notes(f, &report.metadata)?;
    if !report.adapters.is_empty() {
        writeln!(f, "  further adapters in {}", report.adapters.join(", "))?;
    }
    unusual(f, &report.unusual)
}

fn settings(f: &mut Formatter<'_>, settings: &Map<String, Value>) -> Result {
    let number = |key: &str| settings.get(key).and_then(Value::as_f64);
    let or_unknown = |value: Option<f64>| value.map_or("unknown".into(), |v| v.to_string());
    write!(f, "  rank {}", or_unknown(number("rank")))?;
    if let Some(alpha) = number("alpha") {
        write!(f, ", alpha {alpha}")?;
    }
    let value = |key: &str| settings.get(key).unwrap_or(&Value::Null);
    let scaling = if value("scaling") == "rank_stabilized" {
        ", rank-stabilized scaling"
    } else {
        ""
    };
    let (dropout, scale) = (
        number("dropout").unwrap_or(0.0),
        or_unknown(number("scale")),
    );
    writeln!(f, ", dropout {dropout}{scaling}: scale {scale}")?;
    for (key, line) in SETTINGS {
        let value = value(key);
        if is_set(value) && value != "none" {
            let shown = match key {
                "layers" => value.to_string().replace(',', ", "),
                _ => value.to_string(),
            };
            writeln!(f, "  {}", line.replace("{}", &shown))?;
        }
    }
    for what in ["rank", "alpha"] {
        let pattern = value(&format!("{what}_pattern")).as_object();
        for (name, value) in pattern.into_iter().flatten() {
            writeln!(f, "  {what} {value} for {name}")?;
        }
    }
    for (key, what) in [("base_model", "base model"), ("task_type", "task")] {
        if let Some(value) = value(key).as_str() {
            writeln!(f, "  {what} {value}")?;
        }
    }
    Ok(())
}

fn facts(module: &ModuleReport) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some(rank) = module.rank {
        let parts = module.parts.map(|parts| format!(" in {parts} parts"));
        facts.push(format!("rank {rank}{}", parts.unwrap_or_default()));
    }
    facts.extend(module.shape.map(|shape| format!("{shape:?}")));
    if module.kind == "embedding" {
        facts.push("an embedding".into());
    }
    facts.extend(module.scale.map(|scale| format!("scale {scale}")));
    let update = module.scale.map_or("B A", |_| "update");
    let norms = [
        ("A", module.norm_a),
        ("B", module.norm_b),
        (update, module.norm_update),
        ("magnitude", module.norm_magnitude),
        ("bias", module.norm_bias),
    ];
    let norms = norms.into_iter();
    let norms: Vec<String> = norms
        .filter_map(|(what, norm)| Some(format!("{what} {:.4}", norm?)))
        .collect();
    if !norms.is_empty() {
        facts.push(format!("norms of {}", norms.join(", ")));
    }
    facts
}

fn model(f: &mut Formatter<'_>, report: &ModelReport) -> Result {
    let kind = report.model_type.as_deref().unwrap_or("unknown");
    writeln!(f, "{kind} model {}", report.weights.path)?;
    let numbers = [
        (report.layers, "layers"),
        (report.width, "wide"),
        (report.heads, "heads"),
        (report.vocabulary, "tokens"),
        (report.max_length, "positions"),
    ];
    let numbers = numbers.into_iter();
    let mut facts: Vec<String> = numbers
        .filter_map(|(number, what)| Some(format!("{} {what}", number?)))
        .collect();
    if let Some(tied) = report.tied_head {
        facts.push(format!("head {}", if tied { "tied" } else { "of its own" }));
    }
    if !facts.is_empty() {
        writeln!(f, "  {}", facts.join(", "))?;
    }
    labels(f, report.labels.as_deref())?;
    totals(f, &report.weights)?;
    if !report.targets.is_empty() {
        writeln!(f, "  targets: {}", report.targets.join(", "))?;
    }
    notes(f, &report.weights.metadata)?;
    unusual(f, &report.weights.unusual)
}

fn weights(f: &mut Formatter<'_>, report: &WeightsReport) -> Result {
    writeln!(f, "weights {}", report.path)?;
    totals(f, report)?;
    for tensor in report.tensors.iter().take(TENSORS_SHOWN) {
        let (name, dtype, shape) = (&tensor.name, &tensor.dtype, &tensor.shape);
        writeln!(f, "  {name} {dtype} {shape:?}{}", norm(tensor.norm))?;
    }
    if report.tensors.len() > TENSORS_SHOWN {
        let more = report.tensors.len() - TENSORS_SHOWN;
        writeln!(f, "  and {more} more (`--json` lists all)")?;
    }
    notes(f, &report.metadata)?;
    unusual(f, &report.unusual)
}

fn totals(f: &mut Formatter<'_>, report: &WeightsReport) -> Result {
    let Some(source) = &report.source else {
        return Ok(());
    };
    writeln!(
        f,
        "  {source}: {} tensors ({}), {} parameters, {} bytes",
        report.tensors.len(),
        dtypes(&report.dtypes),
        report.parameters,
        report.file_bytes
    )?;
    if report.values_read {
        writeln!(f, "  values read")
    } else {
        writeln!(f, "  values not read (`--values` reads them all)")
    }
}

fn norm(norm: Option<f64>) -> String {
    norm.map_or(String::new(), |norm| format!(", norm {norm:.4}"))
}

fn dtypes(dtypes: &BTreeMap<String, DtypeReport>) -> String {
    if dtypes.is_empty() {
        return "no tensors".into();
    }
    let counts = dtypes.iter();
    let counts = counts.map(|(dtype, count)| format!("{} {dtype}", count.tensors));
    counts.collect::<Vec<_>>().join(", ")
}

fn labels(f: &mut Formatter<'_>, labels: Option<&[String]>) -> Result {
    match labels {
        None => Ok(()),
        Some([score]) if score == "score" => writeln!(f, "  a head gives a score"),
        Some(names) => writeln!(f, "  a head gives {}", names.join(", ")),
    }
}

fn notes(f: &mut Formatter<'_>, metadata: &BTreeMap<String, String>) -> Result {
    for (key, note) in metadata {
        let shown: String = note.chars().take(NOTE_SHOWN).collect();
        let cut = if shown.len() < note.len() { "…" } else { "" };
        writeln!(f, "  noted {key}: {shown}{cut}")?;
    }
    Ok(())
}

fn unusual(f: &mut Formatter<'_>, unusual: &[Unusual]) -> Result {
    let mut all = unusual.iter();
    all.try_for_each(|Unusual { message, .. }| writeln!(f, "  unusual: {message}"))
}

/// Returns true if an option says anything.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}
