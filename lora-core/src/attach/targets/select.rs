//! Selection of a model's matrices by names, patterns, exclusions and layers.

use crate::config::{ExcludeModules, LoraConfig, TargetModules, compile};
use crate::error::LoraError;
use crate::layout::{AdapterPath, Architecture, Matrix, Slices, ends_in};

/// One entry of [`TargetModules::Names`].
struct NamedTarget<'a> {
    name: &'a str,
    parts: Option<Vec<&'a str>>,
}

impl<'a> NamedTarget<'a> {
    /// Reads `c_attn` or `c_attn[q,v]`.
    fn parse(entry: &'a str) -> Result<Self, LoraError> {
        let Some((name, rest)) = entry.split_once('[') else {
            return Ok(Self {
                name: entry,
                parts: None,
            });
        };
        let parts = rest.strip_suffix(']').map(|inner| {
            inner
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
        });
        match parts {
            Some(parts) if !parts.is_empty() && !name.is_empty() => Ok(Self {
                name,
                parts: Some(parts),
            }),
            _ => Err(LoraError::invalid_option(
                "targets",
                format!("`{entry}`"),
                "a module name, or one with slices such as `c_attn[q,v]`",
            )),
        }
    }
}

/// Selected matrices, with the slices of each that get an adapter.
pub(super) type Selected<'a> = Vec<(&'a Matrix, Option<Slices>)>;

/// Selects the targets of a configuration.
pub(super) fn select<'a>(
    matrices: &'a [Matrix],
    config: &LoraConfig,
    architecture: &Architecture,
    no_match: &dyn Fn(&'static str, &str) -> LoraError,
) -> Result<Selected<'a>, LoraError> {
    let names = match &config.targets {
        TargetModules::Names(names) => names,
        targets => {
            let selector = targets.selector()?;
            let is_target = |matrix: &&Matrix| match targets {
                TargetModules::AllLinear => {
                    matrix.is_linear_layer && !architecture.is_output(&matrix.module)
                }
                _ => selector.selects(&matrix.module),
            };
            let selected = matrices.iter().filter(is_target);
            let selected: Selected = selected.map(|matrix| (matrix, None)).collect();
            return match targets {
                TargetModules::Pattern(pattern) if selected.is_empty() => {
                    Err(no_match("target pattern", pattern))
                }
                _ => Ok(selected),
            };
        }
    };
    let mut slots: Vec<Option<Option<Slices>>> = vec![None; matrices.len()];
    for entry in names {
        let named = NamedTarget::parse(entry)?;
        let mut found = false;
        for (slot, matrix) in slots.iter_mut().zip(matrices) {
            if !ends_in(&matrix.module, named.name) {
                continue;
            }
            found = true;
            let slices = match &named.parts {
                None => None,
                Some(parts) => Some(find_slices(matrix, parts, architecture)?),
            };
            match slot {
                Some(other) if *other != slices => {
                    let message = "is named twice, as a module and by slices; name it once";
                    return Err(LoraError::unsupported_target(&matrix.module, message));
                }
                _ => *slot = Some(slices),
            }
        }
        if !found {
            return Err(no_match("target module", named.name));
        }
    }
    let chosen = matrices.iter().zip(slots);
    Ok(chosen
        .filter_map(|(matrix, slot)| slot.map(|slices| (matrix, slices)))
        .collect())
}

/// Resolves the names of a fused projection's parts.
fn find_slices(
    matrix: &Matrix,
    parts: &[&str],
    architecture: &Architecture,
) -> Result<Slices, LoraError> {
    let refuse = |message: String| LoraError::unsupported_target(&matrix.module, message);
    let fused = architecture
        .fused_projection(&matrix.module)
        .ok_or_else(|| refuse("is not a fused projection: name it without slices".into()))?;
    if matrix.path != AdapterPath::Activation {
        return Err(refuse(
            "slices need a `LoraLinear`, this layer reads the composed weight".into(),
        ));
    }
    let index = |part: &&str| {
        let known = fused.parts.iter().position(|name| name == part);
        let all = fused.parts.join(", ");
        known.ok_or_else(|| refuse(format!("has no slice `{part}`; it has {all}")))
    };
    let mut adapted: Vec<usize> = parts.iter().map(index).collect::<Result<_, _>>()?;
    adapted.sort_unstable();
    adapted.dedup();
    let slices = Slices {
        parts: fused.parts.len(),
        adapted,
        layout: fused.layout,
    };
    let (columns, least) = (matrix.shape[1], slices.least_columns());
    if !columns.is_multiple_of(least) {
        let parts = fused.parts.join(", ");
        return Err(refuse(format!(
            "its {columns} columns do not divide into {parts}: they are no multiple of {least}"
        )));
    }
    Ok(slices)
}

/// Removes the excluded modules.
pub(super) fn exclude(
    selected: &mut Selected<'_>,
    matrices: &[Matrix],
    config: &LoraConfig,
    no_match: &dyn Fn(&'static str, &str) -> LoraError,
) -> Result<(), LoraError> {
    let Some(excluded) = &config.exclude else {
        return Ok(());
    };
    let selector = excluded.selector()?;
    match excluded {
        ExcludeModules::Pattern(pattern) => {
            if !matrices.iter().any(|m| selector.selects(&m.module)) {
                return Err(no_match("exclusion pattern", pattern));
            }
        }
        ExcludeModules::Names(names) => {
            let is_unused = |name: &&String| !matrices.iter().any(|m| ends_in(&m.module, name));
            if let Some(name) = names.iter().find(is_unused) {
                return Err(no_match("excluded module", name));
            }
        }
    }
    selected.retain(|(matrix, _)| !selector.selects(&matrix.module));
    Ok(())
}

/// Keeps the modules of the configured layers. The index is the number after the list's name in the path, as in
/// PEFT: `….h.3.attn.c_attn` is layer 3.
pub(super) fn keep_layers(
    selected: &mut Selected<'_>,
    config: &LoraConfig,
) -> Result<(), LoraError> {
    let Some(layers) = &config.layers else {
        return Ok(());
    };
    let mut regexes = Vec::new();
    for name in &config.layers_pattern {
        let regex = format!(r"^(?:.*\.)?(?:{name})\.(\d+)\.");
        regexes.push(compile("layers pattern", name, regex)?);
    }
    if regexes.is_empty() {
        let any = r"^(?:.*\.)?[^.]*\.(\d+)\.";
        regexes.push(compile("layers pattern", "any", any.into())?);
    }
    let index = |path: &str| -> Option<usize> {
        regexes
            .iter()
            .find_map(|regex| regex.captures(path)?.get(1)?.as_str().parse().ok())
    };
    let mut available: Vec<usize> = selected
        .iter()
        .filter_map(|(m, _)| index(&m.module))
        .collect();
    available.sort_unstable();
    available.dedup();
    for layer in layers {
        if !available.contains(layer) {
            return Err(LoraError::NoMatch {
                what: "layer",
                entry: layer.to_string(),
                candidates: available.iter().map(ToString::to_string).collect(),
            });
        }
    }
    selected.retain(|(m, _)| index(&m.module).is_some_and(|layer| layers.contains(&layer)));
    Ok(())
}
