//! Which modules train whole and are saved with the adapter: PEFT's `modules_to_save`.

use super::pattern::{closest, ends_in};
use crate::modules::Parameter;
use crate::{BiasTraining, LoraConfig, LoraError};

/// PEFT adds both to every classification adapter, whichever of them the model has.
const HEADS: [&str; 2] = ["classifier", "score"];

/// A parameter that trains, and is saved with the adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedParameter {
    /// Its path in the module.
    pub parameter: String,
    /// Its name in files.
    pub name: String,
    /// Its shape, as in the module.
    pub shape: Vec<usize>,
    /// Whether it lies the other way round in files: the weight of a linear layer.
    pub transposed: bool,
}

impl SavedParameter {
    /// Its shape in files.
    pub(crate) fn file_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// The number of its values.
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The parameters of the modules that the configuration saves, in the model's order.
pub(super) fn resolve(
    parameters: &[Parameter],
    config: &LoraConfig,
) -> Result<Vec<SavedParameter>, LoraError> {
    let found: Vec<bool> = config
        .modules_to_save
        .iter()
        .map(|entry| parameters.iter().any(|p| is_inside(&p.name, entry)))
        .collect();
    let is_head = |entry: &str| HEADS.contains(&entry);
    let mut entries = config.modules_to_save.iter().zip(&found);
    let has_head = entries.any(|(entry, found)| *found && is_head(entry));
    for (entry, found) in config.modules_to_save.iter().zip(&found) {
        let is_the_other_head = has_head && is_head(entry);
        if !found && !is_the_other_head {
            return Err(LoraError::NoMatch {
                what: "module to save",
                entry: entry.clone(),
                candidates: closest(entry, parameters.iter().filter_map(|p| module_of(&p.name))),
            });
        }
    }
    let entries = &config.modules_to_save;
    let saved = parameters
        .iter()
        .filter(|p| entries.iter().any(|entry| is_inside(&p.name, entry)));
    Ok(saved
        .map(|p| SavedParameter {
            parameter: p.path.clone(),
            name: p.name.clone(),
            shape: p.shape.clone(),
            transposed: p.transposed,
        })
        .collect())
}

/// Adds the biases of the base that train, at their places in the model's order.
///
/// `of_targets` are the paths of the adapted layers' biases. PEFT wraps those layers, so in its files
/// their biases are inside `base_layer`.
pub(super) fn add_biases(
    saved: &mut Vec<SavedParameter>,
    parameters: &[Parameter],
    bias: BiasTraining,
    of_targets: Vec<&str>,
) {
    if bias == BiasTraining::None {
        return;
    }
    let order = |path: &str| parameters.iter().position(|p| p.path == path);
    for parameter in parameters {
        let of_target = of_targets.contains(&parameter.path.as_str());
        let trains = match bias {
            BiasTraining::None => false,
            // As PEFT, by the name alone: not DeBERTa's `q_bias` and `v_bias`.
            BiasTraining::All => parameter.name.ends_with(".bias"),
            BiasTraining::LoraOnly => of_target,
        };
        if !trains || saved.iter().any(|s| s.parameter == parameter.path) {
            continue;
        }
        let wrapped = || Some(format!("{}.base_layer.bias", module_of(&parameter.name)?));
        saved.push(SavedParameter {
            parameter: parameter.path.clone(),
            name: (of_target.then(wrapped).flatten()).unwrap_or_else(|| parameter.name.clone()),
            shape: parameter.shape.clone(),
            transposed: parameter.transposed,
        });
    }
    saved.sort_by_key(|s| order(&s.parameter));
}

fn module_of(parameter: &str) -> Option<&str> {
    Some(parameter.rsplit_once('.')?.0)
}

/// Whether a parameter is in a module whose path is `entry` or ends in it, at any depth.
pub(crate) fn is_inside(parameter: &str, entry: &str) -> bool {
    let mut module = module_of(parameter);
    while let Some(path) = module {
        if ends_in(path, entry) {
            return true;
        }
        module = module_of(path);
    }
    false
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
        let saved = resolve(&parameters(), &config)?;
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

    #[test]
    fn linear_weights_lie_the_other_way_round_in_files() {
        let config = LoraConfig {
            modules_to_save: vec!["classifier".into()],
            ..LoraConfig::default()
        };
        let saved = resolve(&parameters(), &config).unwrap();
        assert_eq!(saved[0].file_shape(), [2, 3]);
        assert_eq!(saved[1].file_shape(), [3, 2]);
    }
}
