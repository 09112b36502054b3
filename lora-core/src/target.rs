//! Which modules a configuration means: names, patterns, layers and slices to resolved paths.

use crate::modules::{LayerKind, Matrix};
use crate::{AdapterPath, ExcludeModules, LoraConfig, LoraError, TargetModules};
use regex::Regex;

/// What a model tells about itself, so that targets can be named as its users know them.
#[derive(Clone, Debug, Default)]
pub struct Architecture {
    /// Names of output layers, which `all-linear` leaves out, such as `lm_head`.
    pub output_layers: Vec<String>,
    /// Projections that hold several matrices side by side.
    pub fused: Vec<FusedProjection>,
}

/// A projection `[d_in, parts · d]` that holds several matrices side by side, such as GPT-2's
/// `c_attn` with q, k and v.
#[derive(Clone, Debug)]
pub struct FusedProjection {
    /// Its name, by the end of its path.
    pub module: String,
    /// Names of the parts, from the first column on.
    pub parts: Vec<String>,
}

/// The parts of a fused projection that have an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slices {
    /// How many parts of equal width the projection has.
    pub parts: usize,
    /// Indices of the adapted ones, ascending.
    pub adapted: Vec<usize>,
}

/// A module that will get an adapter.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub matrix: Matrix,
    /// Of one slice, where the target is sliced.
    pub rank: usize,
    pub alpha: f64,
    pub slices: Option<Slices>,
}

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
            _ => Err(LoraError::InvalidOption {
                option: "targets",
                found: format!("`{entry}`"),
                expected: "a module name, or one with slices such as `c_attn[q,v]`".into(),
            }),
        }
    }
}

/// Whether `path` is `name` or ends in `.name`.
fn ends_in(path: &str, name: &str) -> bool {
    path.strip_suffix(name)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn compile(what: &'static str, pattern: &str, regex: String) -> Result<Regex, LoraError> {
    Regex::new(&regex).map_err(|error| LoraError::InvalidPattern {
        what,
        pattern: pattern.into(),
        message: match error {
            regex::Error::Syntax(message) if message.contains("look-around") => {
                "look-around and back-references are not supported; write it without, or list the names".into()
            }
            other => other.to_string(),
        },
    })
}

/// A regular expression that must match all of a path, as Python's `re.fullmatch`.
fn full_match(what: &'static str, pattern: &str) -> Result<Regex, LoraError> {
    compile(what, pattern, format!("^(?:{pattern})$"))
}

/// The names closest to an entry: what the user may have meant.
fn nearest(entry: &str, matrices: &[Matrix]) -> Vec<String> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_string();
    let mut names: Vec<String> = matrices
        .iter()
        .map(|m| {
            if entry.contains('.') {
                m.module.clone()
            } else {
                last(&m.module)
            }
        })
        .collect();
    names.sort();
    names.dedup();
    names.sort_by(|a, b| {
        let similarity = |name: &str| strsim::jaro_winkler(entry, name);
        similarity(b).total_cmp(&similarity(a))
    });
    names.truncate(5);
    names
}

/// Resolves the configuration against the matrices of a model, in the model's order.
pub(crate) fn resolve(
    matrices: &[Matrix],
    config: &LoraConfig,
    architecture: &Architecture,
) -> Result<Vec<Target>, LoraError> {
    config.validate()?;
    if let Some(matrix) = matrices.iter().find(|matrix| matrix.adapted) {
        return Err(LoraError::AlreadyAttached {
            module: matrix.module.clone(),
        });
    }
    let no_match = |what, entry: &str| LoraError::NoMatch {
        what,
        entry: entry.into(),
        candidates: nearest(entry, matrices),
    };

    let mut selected = select(matrices, config, architecture, &no_match)?;
    exclude(&mut selected, matrices, config, &no_match)?;
    keep_layers(&mut selected, config)?;
    if selected.is_empty() {
        return Err(LoraError::NoMatch {
            what: "configuration",
            entry: "targets without exclusions, in the given layers".into(),
            candidates: nearest("", matrices),
        });
    }

    let ranks = patterns("rank pattern", &config.rank_pattern)?;
    let alphas = patterns("alpha pattern", &config.alpha_pattern)?;
    every_pattern_matches("rank pattern", &config.rank_pattern, &ranks, &selected, &no_match)?;
    every_pattern_matches("alpha pattern", &config.alpha_pattern, &alphas, &selected, &no_match)?;
    let mut targets = Vec::with_capacity(selected.len());
    for (matrix, slices) in selected {
        let target = Target {
            rank: first_match(&ranks, &matrix.module).unwrap_or(config.rank),
            alpha: first_match(&alphas, &matrix.module).unwrap_or(config.alpha),
            matrix: matrix.clone(),
            slices,
        };
        check(&target, config)?;
        targets.push(target);
    }
    Ok(targets)
}

type Selected<'a> = Vec<(&'a Matrix, Option<Slices>)>;

fn select<'a>(
    matrices: &'a [Matrix],
    config: &LoraConfig,
    architecture: &Architecture,
    no_match: &dyn Fn(&'static str, &str) -> LoraError,
) -> Result<Selected<'a>, LoraError> {
    let names = match &config.targets {
        TargetModules::Names(names) => names,
        TargetModules::Pattern(word) if word == TargetModules::ALL_LINEAR => {
            let is_output = |path: &str| {
                let mut outputs = architecture.output_layers.iter();
                outputs.any(|name| ends_in(path, name))
            };
            return Ok(matrices
                .iter()
                .filter(|m| m.kind == LayerKind::Linear && !is_output(&m.module))
                .map(|matrix| (matrix, None))
                .collect());
        }
        TargetModules::Pattern(pattern) => {
            let regex = full_match("target pattern", pattern)?;
            let selected: Selected = matrices
                .iter()
                .filter(|m| regex.is_match(&m.module))
                .map(|matrix| (matrix, None))
                .collect();
            return match selected.is_empty() {
                true => Err(no_match("target pattern", pattern)),
                false => Ok(selected),
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
                Some(parts) => Some(slices_of(matrix, parts, architecture)?),
            };
            match slot {
                Some(other) if *other != slices => {
                    return Err(LoraError::UnsupportedTarget {
                        module: matrix.module.clone(),
                        message: "is named twice, whole and by slices; name it once".into(),
                    });
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

fn slices_of(
    matrix: &Matrix,
    parts: &[&str],
    architecture: &Architecture,
) -> Result<Slices, LoraError> {
    let refuse = |message: String| LoraError::UnsupportedTarget {
        module: matrix.module.clone(),
        message,
    };
    let fused = architecture
        .fused
        .iter()
        .find(|fused| ends_in(&matrix.module, &fused.module))
        .ok_or_else(|| refuse("is not a fused projection: name it without slices".into()))?;
    if matrix.path != AdapterPath::Activation {
        return Err(refuse(
            "slices need a `LoraLinear`, this layer reads the composed weight".into(),
        ));
    }
    if matrix.shape[1] % fused.parts.len() != 0 {
        return Err(refuse(format!(
            "its {} columns do not divide into {} parts",
            matrix.shape[1],
            fused.parts.len()
        )));
    }
    let mut adapted = Vec::new();
    for part in parts {
        let known = fused.parts.iter().position(|name| name == part);
        adapted.push(known.ok_or_else(|| {
            refuse(format!(
                "has no slice `{part}`; it has {}",
                fused.parts.join(", ")
            ))
        })?);
    }
    adapted.sort_unstable();
    adapted.dedup();
    Ok(Slices {
        parts: fused.parts.len(),
        adapted,
    })
}

fn exclude(
    selected: &mut Selected<'_>,
    matrices: &[Matrix],
    config: &LoraConfig,
    no_match: &dyn Fn(&'static str, &str) -> LoraError,
) -> Result<(), LoraError> {
    match &config.exclude {
        None => {}
        Some(ExcludeModules::Pattern(pattern)) => {
            let regex = full_match("exclusion pattern", pattern)?;
            if !matrices.iter().any(|m| regex.is_match(&m.module)) {
                return Err(no_match("exclusion pattern", pattern));
            }
            selected.retain(|(matrix, _)| !regex.is_match(&matrix.module));
        }
        Some(ExcludeModules::Names(names)) => {
            for name in names {
                if !matrices.iter().any(|m| ends_in(&m.module, name)) {
                    return Err(no_match("excluded module", name));
                }
            }
            selected.retain(|(m, _)| !names.iter().any(|name| ends_in(&m.module, name)));
        }
    }
    Ok(())
}

/// Keeps the layers asked for. The index is the number after the list's name in the path, as in
/// PEFT: `….h.3.attn.c_attn` is layer 3.
fn keep_layers(selected: &mut Selected<'_>, config: &LoraConfig) -> Result<(), LoraError> {
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
    let mut available: Vec<usize> = selected.iter().filter_map(|(m, _)| index(&m.module)).collect();
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

fn patterns<T: Copy>(
    what: &'static str,
    entries: &[(String, T)],
) -> Result<Vec<(Regex, T)>, LoraError> {
    entries
        .iter()
        .map(|(pattern, value)| {
            let regex = compile(what, pattern, format!(r"^(?:.*\.)?(?:{pattern})$"))?;
            Ok((regex, *value))
        })
        .collect()
}

fn every_pattern_matches<T>(
    what: &'static str,
    entries: &[(String, T)],
    patterns: &[(Regex, T)],
    selected: &Selected<'_>,
    no_match: &dyn Fn(&'static str, &str) -> LoraError,
) -> Result<(), LoraError> {
    for ((entry, _), (regex, _)) in entries.iter().zip(patterns) {
        if !selected.iter().any(|(m, _)| regex.is_match(&m.module)) {
            return Err(no_match(what, entry));
        }
    }
    Ok(())
}

fn first_match<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Option<T> {
    let (_, value) = patterns.iter().find(|(regex, _)| regex.is_match(path))?;
    Some(*value)
}

fn check(target: &Target, config: &LoraConfig) -> Result<(), LoraError> {
    let [d_in, d_out] = target.matrix.shape;
    let width = target.slices.as_ref().map_or(d_out, |s| d_out / s.parts);
    let refuse = |message: String| {
        Err(LoraError::UnsupportedTarget {
            module: target.matrix.module.clone(),
            message,
        })
    };
    if target.rank > d_in.min(width) {
        return refuse(format!(
            "rank {} is above its matrix [{d_in}, {width}]; choose at most {}",
            target.rank,
            d_in.min(width)
        ));
    }
    if config.dropout > 0.0 && target.matrix.path == AdapterPath::Composed {
        return refuse(
            "dropout acts on the adapter's input, which a layer that reads the composed weight \
             does not have; use a `LoraLinear` there, or dropout 0"
                .into(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Vec<Matrix> {
        let mut matrices = Vec::new();
        for layer in 0..3 {
            for (name, shape) in [
                ("attn.c_attn", [8, 24]),
                ("attn.c_proj", [8, 8]),
                ("mlp.c_fc", [8, 32]),
            ] {
                let module = format!("transformer.h.{layer}.{name}");
                matrices.push(Matrix {
                    parameter: format!("{module}.weight"),
                    module,
                    kind: LayerKind::Linear,
                    path: AdapterPath::Activation,
                    shape,
                    adapted: false,
                });
            }
        }
        matrices.push(Matrix {
            module: "lm_head".into(),
            parameter: "lm_head.weight".into(),
            kind: LayerKind::Linear,
            path: AdapterPath::Activation,
            shape: [8, 50],
            adapted: false,
        });
        matrices
    }

    fn gpt2() -> Architecture {
        Architecture {
            output_layers: vec!["lm_head".into()],
            fused: vec![FusedProjection {
                module: "attn.c_attn".into(),
                parts: ["q", "k", "v"].map(String::from).to_vec(),
            }],
        }
    }

    fn paths(config: &LoraConfig) -> Result<Vec<String>, LoraError> {
        let targets = resolve(&model(), config, &gpt2())?;
        Ok(targets.into_iter().map(|t| t.matrix.module).collect())
    }

    fn names(names: &[&str]) -> LoraConfig {
        LoraConfig::new(4).with_targets(TargetModules::names(names.to_vec()))
    }

    #[test]
    fn a_name_matches_the_end_of_a_path_at_a_dot_only() {
        assert_eq!(paths(&names(&["c_attn"])).unwrap().len(), 3);
        assert_eq!(paths(&names(&["h.1.attn.c_attn"])).unwrap().len(), 1);
        assert!(matches!(
            paths(&names(&["attn"])),
            Err(LoraError::NoMatch { .. })
        ));
    }

    #[test]
    fn every_entry_must_match_and_the_error_names_the_nearest() {
        match paths(&names(&["c_attn", "c_atn"])) {
            Err(LoraError::NoMatch {
                entry, candidates, ..
            }) => {
                assert_eq!(entry, "c_atn");
                assert_eq!(candidates[0], "c_attn");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_linear_leaves_the_output_layer_out() {
        let config = LoraConfig::new(4);
        let found = paths(&config).unwrap();
        assert_eq!(found.len(), 9);
        assert!(!found.contains(&"lm_head".to_string()));
    }

    #[test]
    fn a_pattern_must_match_the_whole_path() {
        let config = |p: &str| LoraConfig::new(4).with_targets(TargetModules::regex(p));
        assert_eq!(paths(&config(r".*\.h\.[02]\.mlp\.c_fc")).unwrap().len(), 2);
        assert!(matches!(
            paths(&config("c_fc")),
            Err(LoraError::NoMatch { .. })
        ));
        assert!(matches!(
            paths(&config("(?<!a)c_fc")),
            Err(LoraError::InvalidPattern { .. })
        ));
    }

    #[test]
    fn exclusions_and_layers_narrow_the_selection() {
        let config = names(&["c_attn", "c_proj"])
            .with_exclude(ExcludeModules::Names(vec!["c_proj".into()]))
            .with_layers([0, 2])
            .with_layers_pattern(["h"]);
        assert_eq!(
            paths(&config).unwrap(),
            ["transformer.h.0.attn.c_attn", "transformer.h.2.attn.c_attn"]
        );
        let absent = names(&["c_attn"]).with_layers([7]);
        assert!(matches!(paths(&absent), Err(LoraError::NoMatch { what: "layer", .. })));
        let useless = names(&["c_attn"]).with_exclude(ExcludeModules::Names(vec!["c_gc".into()]));
        assert!(matches!(paths(&useless), Err(LoraError::NoMatch { .. })));
    }

    #[test]
    fn the_first_pattern_that_matches_sets_rank_and_alpha() {
        let absent = names(&["c_attn"]).with_rank_for("c_fc", 3);
        assert!(matches!(
            paths(&absent),
            Err(LoraError::NoMatch { what: "rank pattern", .. })
        ));
        let config = names(&["c_attn", "c_fc"])
            .with_rank_for("mlp.c_fc", 2)
            .with_rank_for("c_fc", 3)
            .with_alpha_for("h.1.attn.c_attn", 9.0);
        let targets = resolve(&model(), &config, &gpt2()).unwrap();
        let of = |path: &str| targets.iter().find(|t| t.matrix.module == path).unwrap();
        assert_eq!(of("transformer.h.0.mlp.c_fc").rank, 2);
        assert_eq!(of("transformer.h.0.attn.c_attn").rank, 4);
        assert_eq!(of("transformer.h.1.attn.c_attn").alpha, 9.0);
        assert_eq!(of("transformer.h.2.attn.c_attn").alpha, 8.0);
    }

    #[test]
    fn slices_are_named_as_the_model_names_them() {
        let targets = resolve(&model(), &names(&["c_attn[v, q]"]), &gpt2()).unwrap();
        let slices = targets[0].slices.clone().unwrap();
        assert_eq!((slices.parts, slices.adapted), (3, vec![0, 2]));
        for bad in ["c_attn[x]", "c_fc[q]", "c_attn[q", "c_attn[]"] {
            assert!(resolve(&model(), &names(&[bad]), &gpt2()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rank_above_the_matrix_is_refused() {
        let config = LoraConfig::new(9).with_targets(TargetModules::names(["c_proj"]));
        assert!(matches!(
            paths(&config),
            Err(LoraError::UnsupportedTarget { .. })
        ));
    }
}
