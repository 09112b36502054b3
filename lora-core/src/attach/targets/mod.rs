//! Resolution of a configuration on a model: from names, patterns, layers and slices to parameters.
//!
//! | file | contents |
//! | --- | --- |
//! | `select` | matrices selected by names, patterns, exclusions and layers |
//! | `saved` | fully trained parameters: PEFT's `modules_to_save`, and biases |

mod saved;
mod select;

use crate::config::{LoraConfig, closest, first_match, patterns};
use crate::error::LoraError;
use crate::layout::{
    AdapterPath, Architecture, LayerKind, Matrix, Parameters, SavedParameter, Slices,
};
use regex::Regex;
use select::{Selected, exclude, keep_layers, select};

/// A module that will get an adapter.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub matrix: Matrix,
    /// Rank of the adapter, or of each slice.
    pub rank: usize,
    pub alpha: f64,
    pub slices: Option<Slices>,
    /// Path of the layer's bias, if the adapter adds a bias to it.
    pub bias: Option<String>,
}

/// A configuration resolved on a model.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The modules that get an adapter, in the model's order.
    pub targets: Vec<Target>,
    /// The fully trained parameters, in the model's order.
    pub saved: Vec<SavedParameter>,
}

/// Resolves a configuration on the parameters of a model.
pub(crate) fn resolve(
    parameters: &Parameters,
    config: &LoraConfig,
    architecture: &Architecture,
) -> Result<Resolved, LoraError> {
    config.validate()?;
    let matrices = &parameters.matrices;
    if let Some(matrix) = matrices.iter().find(|matrix| matrix.adapted) {
        return Err(LoraError::AlreadyAttached {
            module: matrix.module.clone(),
        });
    }
    let no_match = |what, entry: &str| LoraError::NoMatch {
        what,
        entry: entry.into(),
        candidates: closest(entry, matrices.iter().map(|m| m.module.as_str())),
    };

    let mut selected = select(matrices, config, architecture, &no_match)?;
    exclude(&mut selected, matrices, config, &no_match)?;
    keep_layers(&mut selected, config)?;
    let mut saved = saved::resolve(&parameters.all, config)?;
    // A fully trained weight needs no adapter.
    selected.retain(|(matrix, _)| !saved.iter().any(|s| s.parameter == matrix.parameter));
    let target_biases = selected
        .iter()
        .filter_map(|(matrix, _)| matrix.bias.as_deref());
    let target_biases: Vec<&str> = target_biases.collect();
    saved::add_biases(&mut saved, &parameters.all, config.bias, &target_biases);
    if selected.is_empty() && config.has_targets() {
        return Err(LoraError::NoMatch {
            what: "configuration",
            entry: "targets without exclusions, in the given layers".into(),
            candidates: closest("", matrices.iter().map(|m| m.module.as_str())),
        });
    }

    let ranks = patterns("rank pattern", &config.rank_pattern)?;
    let alphas = patterns("alpha pattern", &config.alpha_pattern)?;
    every_pattern_matches(&config.rank_pattern, &ranks, &selected, |entry| {
        no_match("rank pattern", entry)
    })?;
    every_pattern_matches(&config.alpha_pattern, &alphas, &selected, |entry| {
        no_match("alpha pattern", entry)
    })?;
    let mut targets = Vec::with_capacity(selected.len());
    for (matrix, slices) in selected {
        let target = Target {
            rank: first_match(&ranks, &matrix.module).unwrap_or(config.rank),
            alpha: first_match(&alphas, &matrix.module).unwrap_or(config.alpha),
            bias: matrix.bias.clone().filter(|_| config.lora_bias),
            matrix: matrix.clone(),
            slices,
        };
        check(&target, config)?;
        targets.push(target);
    }
    Ok(Resolved { targets, saved })
}

fn every_pattern_matches<T>(
    entries: &[(String, T)],
    patterns: &[(Regex, T)],
    selected: &Selected<'_>,
    no_match: impl Fn(&str) -> LoraError,
) -> Result<(), LoraError> {
    let mut pairs = entries.iter().zip(patterns);
    let is_unused = |regex: &Regex| !selected.iter().any(|(m, _)| regex.is_match(&m.module));
    match pairs.find(|(_, (regex, _))| is_unused(regex)) {
        Some(((entry, _), _)) => Err(no_match(entry)),
        None => Ok(()),
    }
}

/// Refuses a target that the adapter does not fit.
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
    if config.lora_bias && target.bias.is_none() {
        let message = "has no bias, which `lora_bias` adds to; leave out the layer or the option";
        return refuse(message.into());
    }
    if config.init.is_residual() && target.matrix.kind == LayerKind::Embedding {
        return refuse(format!(
            "init {} is for linear layers, this is an embedding",
            config.init
        ));
    }
    if config.dropout > 0.0 && target.matrix.path == AdapterPath::Composed {
        return refuse(
            "dropout applies to the adapter's input, and a layer that reads the composed weight has \
             none; use a `LoraLinear` there, or dropout 0"
                .into(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ExcludeModules, TargetModules};
    use crate::layout::{FusedLayout, FusedProjection};

    fn model() -> Parameters {
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
                    is_linear_layer: true,
                    bias: Some(format!("transformer.h.{layer}.{name}.bias")),
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
            is_linear_layer: true,
            bias: None,
            adapted: false,
        });
        Parameters {
            matrices,
            ..Parameters::default()
        }
    }

    fn gpt2() -> Architecture {
        Architecture {
            output_layers: vec!["lm_head".into()],
            fused: vec![FusedProjection {
                module: "attn.c_attn".into(),
                parts: ["q", "k", "v"].map(String::from).to_vec(),
                layout: FusedLayout::PartByPart,
            }],
            ..Architecture::default()
        }
    }

    fn paths(config: &LoraConfig) -> Result<Vec<String>, LoraError> {
        let resolved = resolve(&model(), config, &gpt2())?;
        Ok(resolved
            .targets
            .into_iter()
            .map(|t| t.matrix.module)
            .collect())
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
        assert!(matches!(
            paths(&absent),
            Err(LoraError::NoMatch { what: "layer", .. })
        ));
        let useless = names(&["c_attn"]).with_exclude(ExcludeModules::Names(vec!["c_gc".into()]));
        assert!(matches!(paths(&useless), Err(LoraError::NoMatch { .. })));
    }

    #[test]
    fn the_first_pattern_that_matches_sets_rank_and_alpha() {
        let absent = names(&["c_attn"]).with_rank_for("c_fc", 3);
        assert!(matches!(
            paths(&absent),
            Err(LoraError::NoMatch {
                what: "rank pattern",
                ..
            })
        ));
        let config = names(&["c_attn", "c_fc"])
            .with_rank_for("mlp.c_fc", 2)
            .with_rank_for("c_fc", 3)
            .with_alpha_for("h.1.attn.c_attn", 9.0);
        let targets = resolve(&model(), &config, &gpt2()).unwrap().targets;
        let of = |path: &str| targets.iter().find(|t| t.matrix.module == path).unwrap();
        assert_eq!(of("transformer.h.0.mlp.c_fc").rank, 2);
        assert_eq!(of("transformer.h.0.attn.c_attn").rank, 4);
        assert_eq!(of("transformer.h.1.attn.c_attn").alpha, 9.0);
        assert_eq!(of("transformer.h.2.attn.c_attn").alpha, 8.0);
    }

    #[test]
    fn slices_are_named_as_the_model_names_them() {
        let resolved = resolve(&model(), &names(&["c_attn[v, q]"]), &gpt2()).unwrap();
        let targets = resolved.targets;
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
