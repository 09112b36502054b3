//! The fully trained parameters that are saved with the adapter: PEFT's `modules_to_save`, and biases.

use crate::config::{BiasTraining, LoraConfig, closest};
use crate::error::LoraError;
use crate::layout::{
    Architecture, CLASSIFICATION_HEADS, Parameter, SavedParameter, ends_in, is_inside, module_of,
};

/// Returns the parameters of the modules that the configuration saves, in the model's order.
pub(super) fn resolve(
    parameters: &[Parameter],
    config: &LoraConfig,
    architecture: &Architecture,
) -> Result<Vec<SavedParameter>, LoraError> {
    let entries = &config.modules_to_save;
    let is_head = |entry: &String| CLASSIFICATION_HEADS.contains(&entry.as_str());
    let found = |entry: &String| parameters.iter().any(|p| is_inside(&p.name, entry));
    let has_head = entries.iter().any(|entry| is_head(entry) && found(entry));
    // The output layer that is tied to a trained embedding has no weight of its own.
    let is_tied = |entry: &String| {
        let mut outputs = architecture.vocabulary.iter().skip(1);
        config.ensure_weight_tying && outputs.any(|module| ends_in(module, entry))
    };
    let is_matched =
        |entry: &String| found(entry) || (has_head && is_head(entry)) || is_tied(entry);
    if let Some(entry) = entries.iter().find(|entry| !is_matched(entry)) {
        return Err(LoraError::NoMatch {
            what: "module to save",
            entry: entry.clone(),
            candidates: closest(entry, parameters.iter().filter_map(|p| module_of(&p.name))),
        });
    }
    let saved = parameters
        .iter()
        .filter(|p| entries.iter().any(|entry| is_inside(&p.name, entry)));
    Ok(saved.map(|p| with_name(p, p.name.clone())).collect())
}

fn with_name(parameter: &Parameter, name: String) -> SavedParameter {
    SavedParameter {
        parameter: parameter.path.clone(),
        name,
        shape: parameter.shape.clone(),
        transposed: parameter.transposed,
    }
}

/// Adds the trained biases of the base, in the model's order.
///
/// `target_biases` are the paths of the adapted layers' biases. PEFT wraps those layers, so its files hold
/// their biases inside `base_layer`.
pub(super) fn add_biases(
    saved: &mut Vec<SavedParameter>,
    parameters: &[Parameter],
    bias: BiasTraining,
    target_biases: &[&str],
) {
    if bias == BiasTraining::None {
        return;
    }
    let order = |path: &str| parameters.iter().position(|p| p.path == path);
    for parameter in parameters {
        let is_target = target_biases.contains(&parameter.path.as_str());
        let trains = match bias {
            BiasTraining::None => false,
            // As PEFT, by the name alone: not DeBERTa's `q_bias` and `v_bias`.
            BiasTraining::All => parameter.name.ends_with(".bias"),
            BiasTraining::LoraOnly => is_target,
        };
        if !trains || saved.iter().any(|s| s.parameter == parameter.path) {
            continue;
        }
        let name = match module_of(&parameter.name) {
            Some(module) if is_target => format!("{module}.base_layer.bias"),
            _ => parameter.name.clone(),
        };
        saved.push(with_name(parameter, name));
    }
    saved.sort_by_key(|s| order(&s.parameter));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Vec<Parameter> {
        [
            "bert.pooler.dense.weight",
            "bert.encoder.LayerNorm.weight",
            "classifier.weight",
            "classifier.bias",
        ]
        .map(|name| Parameter {
            path: format!("here.{name}"),
            name: name.into(),
            shape: vec![3, 2],
            transposed: name != "classifier.bias",
        })
        .to_vec()
    }

    fn saved(entries: &[&str]) -> Result<Vec<String>, LoraError> {
        let config = LoraConfig {
            modules_to_save: entries.iter().map(|entry| entry.to_string()).collect(),
            ..LoraConfig::default()
        };
        let saved = resolve(&parameters(), &config, &Architecture::default())?;
        Ok(saved.into_iter().map(|s| s.name).collect())
    }

    #[test]
    fn a_module_is_saved_with_all_that_is_in_it() {
        assert_eq!(
            saved(&["classifier"]).unwrap(),
            ["classifier.weight", "classifier.bias"]
        );
        assert_eq!(saved(&["pooler"]).unwrap(), ["bert.pooler.dense.weight"]);
        assert_eq!(saved(&["bert"]).unwrap().len(), 2);
        assert!(saved(&[]).unwrap().is_empty());
    }

    #[test]
    fn an_entry_that_matches_nothing_is_an_error_but_for_the_other_name_of_the_head() {
        assert_eq!(saved(&["classifier", "score"]).unwrap().len(), 2);
        for entries in [
            ["score"].as_slice(),
            &["pooler", "score"],
            &["classifier", "pool"],
        ] {
            match saved(entries) {
                Err(LoraError::NoMatch { what, .. }) => assert_eq!(what, "module to save"),
                other => panic!("{other:?}"),
            }
        }
    }
}
