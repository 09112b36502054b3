//! What was found, for people.

use super::report::{
    AdapterReport, ModelReport, ModuleReport, Report, Settings, TreeReport, Unusual, WeightsReport,
};
use serde_json::Value;
use std::fmt;

/// Tensors of a file of weights that are listed; `--json` lists all.
const TENSORS_SHOWN: usize = 40;
/// Characters of a note in a file's metadata that are shown.
const NOTE_SHOWN: usize = 80;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Adapter(report) => adapter(f, report),
            Report::Adapters(report) => tree(f, report),
            Report::Model(report) => model(f, report),
            Report::Weights(report) => file(f, report),
        }
    }
}

fn adapter(f: &mut fmt::Formatter<'_>, report: &AdapterReport) -> fmt::Result {
    let format = match (report.format, report.peft_type.as_deref()) {
        ("peft", Some("LORA") | None) => "PEFT LoRA".to_string(),
        ("peft", Some(other)) => format!("PEFT {other}"),
        ("mlx", _) => "mlx-lm LoRA".to_string(),
        (other, _) => format!("{other} LoRA"),
    };
    writeln!(f, "{format} adapter {}", report.path)?;
    if let Some(settings) = &report.settings {
        self::settings(f, settings)?;
    } else if !report.config.is_empty() {
        // Another kind of adapter: whatever its configuration sets.
        for (key, value) in report.config.iter().filter(|(_, value)| is_set(value)) {
            writeln!(f, "  {key} {value}")?;
        }
    }
    writeln!(
        f,
        "  {} modules, {} parameters{}, {} bytes in {}",
        report.modules.len(),
        report.parameters,
        match report.saved_parameters {
            0 => String::new(),
            count => format!(" and {count} in other tensors"),
        },
        report.file_bytes,
        dtypes(&report.dtypes)
    )?;
    for module in &report.modules {
        self::module(f, module)?;
    }
    for saved in &report.saved {
        let norm = saved
            .norm
            .map_or(String::new(), |norm| format!(", norm {norm:.4}"));
        writeln!(f, "  {} {:?}, trained whole{norm}", saved.name, saved.shape)?;
    }
    if let Some(labels) = &report.labels {
        outputs(f, labels)?;
    }
    notes(f, &report.metadata)?;
    if !report.adapters.is_empty() {
        writeln!(f, "  further adapters in {}", report.adapters.join(", "))?;
    }
    unusual(f, &report.unusual)
}

fn settings(f: &mut fmt::Formatter<'_>, settings: &Settings) -> fmt::Result {
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "unknown".into());
    write!(
        f,
        "  rank {}",
        or_unknown(settings.rank.map(|rank| rank.to_string()))
    )?;
    if let Some(alpha) = settings.alpha {
        write!(f, ", alpha {alpha}")?;
    }
    let scaling = match settings.scaling {
        "rank_stabilized" => ", rank-stabilized scaling",
        _ => "",
    };
    let scale = or_unknown(settings.scale.map(|scale| scale.to_string()));
    writeln!(f, ", dropout {}{scaling}: scale {scale}", settings.dropout)?;
    if is_set(&settings.targets) {
        writeln!(f, "  targets {}", settings.targets)?;
    }
    if is_set(&settings.exclude) {
        writeln!(f, "  without {}", settings.exclude)?;
    }
    if let Some(layers) = &settings.layers {
        writeln!(f, "  in layers {layers:?}")?;
    }
    if settings.dora {
        writeln!(f, "  DoRA: magnitudes train apart")?;
    }
    if settings.lora_bias {
        writeln!(f, "  `B` has a bias")?;
    }
    if settings.bias.as_str().is_some_and(|bias| bias != "none") {
        writeln!(f, "  biases of the base train: {}", settings.bias)?;
    }
    for (what, pattern) in [
        ("rank", &settings.rank_pattern),
        ("alpha", &settings.alpha_pattern),
    ] {
        for (name, value) in pattern {
            writeln!(f, "  {what} {value} for {name}")?;
        }
    }
    for (what, value) in [
        ("base model", &settings.base_model),
        ("task", &settings.task_type),
    ] {
        if let Some(value) = value {
            writeln!(f, "  {what} {value}")?;
        }
    }
    Ok(())
}

fn module(f: &mut fmt::Formatter<'_>, module: &ModuleReport) -> fmt::Result {
    write!(f, "  {}:", module.module)?;
    let mut facts = Vec::new();
    if let Some(rank) = module.rank {
        let parts = module
            .parts
            .map_or(String::new(), |parts| format!(" in {parts} parts"));
        facts.push(format!("rank {rank}{parts}"));
    }
    if let Some([d_out, d_in]) = module.shape {
        facts.push(format!("[{d_out}, {d_in}]"));
    }
    if module.kind == "embedding" {
        facts.push("an embedding".into());
    }
    if let Some(scale) = module.scale {
        facts.push(format!("scale {scale}"));
    }
    let update = match module.scale {
        Some(_) => "update",
        None => "B A",
    };
    let norms = [
        ("A", module.norm_a),
        ("B", module.norm_b),
        (update, module.norm_update),
        ("magnitude", module.norm_magnitude),
        ("bias", module.norm_bias),
    ];
    let norms: Vec<String> = norms
        .into_iter()
        .filter_map(|(what, norm)| Some(format!("{what} {:.4}", norm?)))
        .collect();
    if !norms.is_empty() {
        facts.push(format!("norms of {}", norms.join(", ")));
    }
    writeln!(f, " {}", facts.join(", "))
}

fn tree(f: &mut fmt::Formatter<'_>, report: &TreeReport) -> fmt::Result {
    writeln!(f, "{} adapters in {}", report.adapters.len(), report.path)?;
    for name in &report.adapters {
        writeln!(f, "  {name}")?;
    }
    Ok(())
}

fn model(f: &mut fmt::Formatter<'_>, report: &ModelReport) -> fmt::Result {
    let kind = report.model_type.as_deref().unwrap_or("unknown");
    writeln!(f, "{kind} model {}", report.weights.path)?;
    let numbers = [
        (report.layers, "layers"),
        (report.width, "wide"),
        (report.heads, "heads"),
        (report.vocabulary, "tokens"),
        (report.max_length, "positions"),
    ];
    let mut facts: Vec<String> = numbers
        .into_iter()
        .filter_map(|(number, what)| Some(format!("{} {what}", number?)))
        .collect();
    if let Some(tied) = report.tied_head {
        facts.push(format!("head {}", if tied { "tied" } else { "of its own" }));
    }
    if !facts.is_empty() {
        writeln!(f, "  {}", facts.join(", "))?;
    }
    if let Some(labels) = &report.labels {
        outputs(f, labels)?;
    }
    totals(f, &report.weights)?;
    if !report.targets.is_empty() {
        writeln!(f, "  targets: {}", report.targets.join(", "))?;
    }
    notes(f, &report.weights.metadata)?;
    unusual(f, &report.weights.unusual)
}

fn file(f: &mut fmt::Formatter<'_>, report: &WeightsReport) -> fmt::Result {
    writeln!(f, "weights {}", report.path)?;
    totals(f, report)?;
    for tensor in report.tensors.iter().take(TENSORS_SHOWN) {
        let norm = tensor
            .norm
            .map_or(String::new(), |norm| format!(", norm {norm:.4}"));
        writeln!(
            f,
            "  {} {} {:?}{norm}",
            tensor.name, tensor.dtype, tensor.shape
        )?;
    }
    if report.tensors.len() > TENSORS_SHOWN {
        let more = report.tensors.len() - TENSORS_SHOWN;
        writeln!(f, "  and {more} more (`--json` lists all)")?;
    }
    notes(f, &report.metadata)?;
    unusual(f, &report.unusual)
}

fn totals(f: &mut fmt::Formatter<'_>, report: &WeightsReport) -> fmt::Result {
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
    match report.values_read {
        true => writeln!(f, "  values read"),
        false => writeln!(f, "  values not read (`--values` reads them all)"),
    }
}

fn dtypes(dtypes: &std::collections::BTreeMap<&'static str, super::DtypeReport>) -> String {
    let counts: Vec<String> = dtypes
        .iter()
        .map(|(dtype, count)| format!("{} {dtype}", count.tensors))
        .collect();
    match counts.is_empty() {
        true => "no tensors".into(),
        false => counts.join(", "),
    }
}

fn outputs(f: &mut fmt::Formatter<'_>, labels: &[String]) -> fmt::Result {
    match labels {
        [score] if score == "score" => writeln!(f, "  a head gives a score"),
        names => writeln!(f, "  a head gives {}", names.join(", ")),
    }
}

fn notes(
    f: &mut fmt::Formatter<'_>,
    metadata: &std::collections::BTreeMap<String, String>,
) -> fmt::Result {
    for (key, note) in metadata {
        let shown: String = note.chars().take(NOTE_SHOWN).collect();
        let cut = if shown.len() < note.len() { "…" } else { "" };
        writeln!(f, "  noted {key}: {shown}{cut}")?;
    }
    Ok(())
}

fn unusual(f: &mut fmt::Formatter<'_>, unusual: &[Unusual]) -> fmt::Result {
    for Unusual { message, .. } in unusual {
        writeln!(f, "  unusual: {message}")?;
    }
    Ok(())
}

/// Whether an option says anything.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}
