//! Resolution of a configuration on a model: from names, patterns, layers and slices to parameters.
//!
//! | file | contents |
//! | --- | --- |
//! | `select` | matrices selected by names, patterns, exclusions and layers |
//! | `tokens` | rows of single tokens: PEFT's `trainable_token_indices` |
//! | `saved` | fully trained parameters: PEFT's `modules_to_save`, and biases |

mod saved;
mod select;
mod tokens;

use crate::config::{LoraConfig, ModulePatterns, closest};
use crate::error::LoraError;
use crate::layout::{
    AdaptedModule, Architecture, LayerKind, Parameters, SavedParameter, TokenModule,
};
use select::{exclude, keep_layers, select};

/// A configuration resolved on a model.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The modules that get an adapter, in the model's order.
    pub targets: Vec<AdaptedModule>,
    /// The fully trained parameters, in the model's order.
    pub saved: Vec<SavedParameter>,
    /// The matrices over the vocabulary with trained rows.
    pub tokens: Vec<TokenModule>,
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
    let mut saved = saved::resolve(&parameters.all, config, architecture)?;
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

    let modules: Vec<&str> = selected.iter().map(|(m, _)| m.module.as_str()).collect();
    let patterns = ModulePatterns::new(config)?;
    if let Some((what, entry)) = patterns.unused(config, &modules).first() {
        return Err(no_match(what, entry));
    }
    let mut targets = Vec::with_capacity(selected.len());
    for (matrix, slices) in selected {
        let (rank, alpha) = patterns.rank_and_alpha(&matrix.module);
        let target = AdaptedModule {
            module: matrix.module.clone(),
            parameter: matrix.parameter.clone(),
            kind: matrix.kind,
            shape: matrix.shape,
            rank,
            alpha,
            scale: config.scaling.factor(alpha, rank),
            path: matrix.path,
            slices,
            dora: config.dora,
            bias: matrix.bias.clone().filter(|_| config.lora_bias),
            residual_init: config.init.is_residual(),
        };
        check(&target, config)?;
        targets.push(target);
    }
    let tokens = tokens::resolve(matrices, config, architecture, &targets, &saved)?;
    Ok(Resolved {
        targets,
        saved,
        tokens,
    })
}

/// Refuses a target that the adapter does not fit.
fn check(target: &AdaptedModule, config: &LoraConfig) -> Result<(), LoraError> {
    let d_in = target.shape[0];
    let width = target.block_widths().into_iter().min().unwrap_or(0);
    let refuse = |message: String| Err(LoraError::unsupported_target(&target.module, message));
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
    if config.init.is_residual() && target.kind == LayerKind::Embedding {
        return refuse(format!(
            "init {} is for linear layers, this is an embedding",
            config.init
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ExcludeModules, TargetModules};
    use crate::layout::{AdapterPath, FusedLayout, FusedProjection, Matrix};

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
        Ok(resolved.targets.into_iter().map(|t| t.module).collect())
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
        let of = |path: &str| targets.iter().find(|t| t.module == path).unwrap();
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
